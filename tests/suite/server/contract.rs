//! Requests, responses and errors as SageMaker and its callers see them.

use std::time::Duration;

use ahi_inference::config::HttpSettings;
use ahi_inference::error::ErrorKind;
use ahi_inference::server::status;
use base64::Engine;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::harness::{Answer, ID, SEGMENTATION, STATUSES, Server, Setup, body};

fn decoded(output: &Value) -> Vec<u8> {
    base64::engine::general_purpose::STANDARD.decode(output["data"].as_str().unwrap()).unwrap()
}

#[tokio::test]
async fn ping_answers_the_state_with_an_empty_body() {
    let server = Server::start(Setup::default());
    assert_eq!(server.ping().await, 503);
    server.readiness.started(true);
    let answer = server.send("GET /ping", &[], b"").await;
    assert_eq!((answer.status, answer.body.len()), (200, 0));
    assert_eq!(server.send("HEAD /ping", &[], b"").await.status, 200);

    let failed = Server::start(Setup::default());
    failed.readiness.started(false);
    assert_eq!(failed.ping().await, 503);
    // A request sent nevertheless gets the pipeline's error about the model.
    failed.invoke(json!({"model": "invalid_model"})).await.error(422, "invalid_model");
}

#[tokio::test]
async fn answers_carry_the_outputs_and_every_identifier() {
    let server = Server::ready();
    let headers = [
        ("Content-Type", "application/json"),
        ("Accept", "*/*"),
        ("X-Amzn-SageMaker-Inference-Id", "study-7"),
        ("X-Amzn-SageMaker-Target-Model", "spleen.tar.gz"),
    ];
    let body = json!({
        "inputs": [{"datastoreId": ID, "imageSetId": ID}, {"datastoreId": ID, "imageSetId": ID}],
        "outputs": ["dicom-seg", "nifti"],
    });
    let answer = server.send("POST /invocations", &headers, body.to_string().as_bytes()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let json = answer.json();
    assert_eq!(json["requestId"], answer.headers["x-request-id"]);
    assert_eq!(json["inferenceId"], "study-7");
    assert_eq!(answer.headers["x-amzn-sagemaker-inference-id"], "study-7");
    assert_eq!(json["model"], "spleen.tar.gz");
    let results = json["results"].as_array().unwrap();
    assert_eq!(results.len(), 2);
    assert_eq!(results[1]["index"], 1);
    let output = &results[1]["outputs"][0];
    assert_eq!(output["kind"], "dicom-seg");
    assert_eq!(output["mediaType"], "application/dicom");
    assert_eq!(output["fileName"], "1.seg.dcm");
    assert_eq!(output["bytes"], SEGMENTATION.len());
    assert_eq!(output["sha256"], format!("{:x}", Sha256::digest(SEGMENTATION)));
    assert_eq!(decoded(output), SEGMENTATION);
    assert_eq!(results[1]["outputs"][1]["kind"], "nifti");
    assert!(results[0].get("warnings").is_none());
}

#[tokio::test]
async fn outputs_with_a_uri_are_named_and_not_repeated() {
    let server = Server::ready();
    let answer = server.invoke(json!({"outputS3Uri": "s3://bucket/a"})).await;
    let output = &answer.json()["results"][0]["outputs"][0];
    assert_eq!(output["uri"], "s3://bucket/a/0.seg.dcm");
    assert!(output.get("data").is_none());

    let http =
        HttpSettings { output_uri: Some("s3://default/b".to_owned()), ..Setup::default().http };
    let server = Server::start(Setup { http, ..Setup::default() });
    for (options, uri) in [
        (json!({}), "s3://default/b/0.seg.dcm"),
        (json!({"outputS3Uri": "s3://bucket/a"}), "s3://bucket/a/0.seg.dcm"),
    ] {
        let json = server.invoke(options).await.json();
        assert_eq!(json["results"][0]["outputs"][0]["uri"], uri);
    }
}

#[tokio::test]
async fn outputs_too_large_for_the_answer_are_left_out_aloud() {
    let server = Server::ready();
    let all = ["dicom-seg", "nifti"];
    // Each fits alone; together they do not.
    let answer = server.invoke(json!({"model": "big-4000", "outputs": all})).await;
    assert_eq!(answer.status, 200);
    assert!(answer.body.len() <= 10_000, "{}", answer.body.len());
    let result = &answer.json()["results"][0];
    assert_eq!(decoded(&result["outputs"][0]), vec![7; 4000]);
    let second = &result["outputs"][1];
    assert!(second.get("data").is_none() && second["omitted"].is_string(), "{second}");
    assert_eq!(second["bytes"], 4000);
    let warning = result["warnings"][0].as_str().unwrap();
    assert!(warning.contains("0.labels.nii.gz") && warning.contains("outputS3Uri"), "{warning}");
}

#[tokio::test]
async fn the_segmentation_itself_is_had_by_accept() {
    let server = Server::ready();
    let bare = body(json!({})).to_string();
    let accept = |value| [("Accept", value)];
    let start = "POST /invocations";
    for value in ["application/dicom", "application/json;q=0.9, application/dicom"] {
        let answer = server.send(start, &accept(value), bare.as_bytes()).await;
        assert_eq!((answer.status, answer.body.as_slice()), (200, SEGMENTATION));
        assert_eq!(answer.headers["content-type"], "application/dicom");
        assert!(answer.headers["content-disposition"].contains("0.seg.dcm"));
        assert!(answer.headers.contains_key("x-request-id"));
    }

    let set = json!({"datastoreId": ID, "imageSetId": ID});
    let two = json!({"inputs": [set, set]}).to_string();
    let message = server
        .send(start, &accept("application/dicom"), two.as_bytes())
        .await
        .error(406, "not_acceptable");
    assert!(message.contains("many inputs"), "{message}");
    let either = accept("application/dicom, application/json;q=0.1");
    let answer = server.send(start, &either, two.as_bytes()).await;
    assert_eq!(answer.json()["results"].as_array().unwrap().len(), 2);

    // Either type of segmentation, but not both.
    let of = |outputs: &[&str]| body(json!({"outputs": outputs})).to_string();
    let label_map = of(&["nifti", "dicom-seg-labelmap"]);
    let answer = server.send(start, &accept("application/dicom"), label_map.as_bytes()).await;
    assert_eq!((answer.status, answer.body.as_slice()), (200, SEGMENTATION));
    let both = of(&["dicom-seg", "dicom-seg-labelmap"]);
    let answer = server.send(start, &accept("application/dicom"), both.as_bytes()).await;
    let message = answer.error(406, "not_acceptable");
    assert!(message.contains("two types"), "{message}");
    assert_eq!(server.send(start, &either, both.as_bytes()).await.status, 200);

    let nifti = of(&["nifti"]);
    let answer = server.send(start, &accept("application/dicom"), nifti.as_bytes()).await;
    answer.error(406, "not_acceptable");
    let answer = server.send(start, &accept("image/png"), bare.as_bytes()).await;
    answer.error(406, "not_acceptable");
    let offers = &answer.json()["error"]["details"]["offers"];
    assert_eq!(
        *offers,
        json!([
            "application/json",
            "application/dicom",
            "application/jsonlines",
            "text/event-stream"
        ])
    );
}

#[tokio::test]
async fn every_kind_of_error_has_its_status_and_code() {
    let server = Server::ready();
    for (kind, expected) in STATUSES {
        assert_eq!(status::status(kind).as_u16(), expected, "{kind:?}");
        let answer = server.invoke(json!({"model": kind.code()})).await;
        let message = answer.error(expected, kind.code());
        let details = &answer.json()["error"]["details"];
        if expected == 500 && kind != ErrorKind::InferenceFailed {
            assert!(!message.contains("as asked for") && details == &json!({}), "{message}");
        } else {
            assert_eq!(message, "as asked for");
            assert_eq!(details["sopInstanceUID"], "1.2.3");
        }
        let retry = matches!(kind.code(), "throttled" | "overloaded");
        assert_eq!(answer.headers.contains_key("retry-after"), retry, "{kind:?}");
    }
}

#[tokio::test]
async fn requests_that_cannot_be_understood_are_refused_with_the_reason() {
    let server = Server::ready();
    let bare = body(json!({})).to_string();
    let invoke = async |headers: &[(&str, &str)], body: &str| -> Answer {
        server.send("POST /invocations", headers, body.as_bytes()).await
    };

    let unknown = body(json!({"patientName": "x"})).to_string();
    let message = invoke(&[], &unknown).await.error(400, "invalid_request");
    assert!(message.contains("patientName"), "{message}");
    invoke(&[], "").await.error(400, "invalid_request");
    invoke(&[], "{").await.error(400, "invalid_request");

    for media_type in ["image/jph", "application/x-npy", "text/plain", "x"] {
        let headers = [("Content-Type", media_type)];
        invoke(&headers, &bare).await.error(415, "unsupported_media_type");
    }
    invoke(&[("Content-Encoding", "gzip")], &bare).await.error(415, "unsupported_media_type");

    let long = "x".repeat(65);
    let answer = invoke(&[("X-Amzn-SageMaker-Inference-Id", &long)], &bare).await;
    answer.error(400, "invalid_request");
    assert!(!answer.headers.contains_key("x-amzn-sagemaker-inference-id"));

    let two = [
        ("X-Amzn-SageMaker-Target-Model", "spleen"),
        ("X-Amzn-SageMaker-Custom-Attributes", "trace=1,model=lung"),
    ];
    invoke(&two, &bare).await.error(400, "invalid_request");
    let json = invoke(&two[1..], &bare).await.json();
    assert_eq!(json["model"], "lung");
    assert_eq!(server.stand_in.started.load(std::sync::atomic::Ordering::SeqCst), 1);
}

#[tokio::test]
async fn unknown_routes_and_methods_are_json_errors() {
    let server = Server::ready();
    for start in ["GET /", "POST /invocation", "GET /invocations/", "DELETE /models/x"] {
        server.send(start, &[], b"").await.error(404, "route_not_found");
    }
    for (start, allow) in
        [("GET /invocations", "POST"), ("POST /ping", "GET,HEAD"), ("DELETE /ping", "GET,HEAD")]
    {
        let answer = server.send(start, &[], b"").await;
        answer.error(405, "method_not_allowed");
        assert_eq!(answer.headers["allow"], allow, "{start}");
    }
}

#[tokio::test]
async fn a_panic_is_an_error_and_the_server_goes_on() {
    let server = Server::ready();
    for _ in 0..10 {
        server.invoke(json!({"model": "panic"})).await.error(500, "internal");
    }
    assert_eq!(server.ping().await, 200);
    assert_eq!(server.invoke(json!({})).await.status, 200);
}

#[tokio::test]
async fn the_deadline_cancels_the_work_and_names_the_way_out() {
    let http =
        HttpSettings { request_timeout: Some(Duration::from_millis(200)), ..Setup::default().http };
    let server = Server::start(Setup { http, ..Setup::default() });
    let answer = server.invoke(json!({"model": "slow-60000"})).await;
    let message = answer.error(504, "deadline_exceeded");
    assert!(message.contains("asynchronous endpoint"), "{message}");
    super::harness::eventually("cancelled", || {
        server.stand_in.cancelled.load(std::sync::atomic::Ordering::SeqCst) == 1
    })
    .await;
}
