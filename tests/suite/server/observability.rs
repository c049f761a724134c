//! What the server reports about itself, and that it is true.

use std::time::Duration;

use ahi_inference::config::AdmissionSettings;
use serde_json::{Value, json};

use super::harness::{BUDGET, Server, Setup, body};

fn server() -> Server {
    let server = Server::start(Setup { multi_model: true, ..Setup::default() });
    server.readiness.started(true);
    server
}

async fn metrics(server: &Server) -> String {
    let answer = server.send("GET /metrics", &[], b"").await;
    assert_eq!(answer.status, 200);
    assert!(answer.headers["content-type"].starts_with("application/openmetrics-text"));
    String::from_utf8(answer.body).unwrap()
}

/// Returns the value of a metric, written with its labels.
#[track_caller]
fn value(text: &str, metric: &str) -> f64 {
    let line = text.lines().find_map(|l| l.strip_prefix(metric)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {metric} in\n{text}")).parse().unwrap()
}

#[tokio::test]
async fn requests_bytes_and_places_are_counted() {
    let admission = AdmissionSettings { max_concurrent: 1, queue: 1 };
    let server = Server::start(Setup { admission, ..Setup::default() });
    server.readiness.started(true);
    let sent = body(json!({})).to_string().len();
    let answered = server.invoke(json!({})).await;
    assert_eq!(answered.status, 200);
    server.send("POST /invocations", &[], b"{}").await.error(400, "invalid_request");
    server.send("GET /patients/Doe^Jane", &[], b"").await.error(404, "route_not_found");
    server.send("BREW /ping", &[], b"").await.error(405, "method_not_allowed");

    let text = metrics(&server).await;
    for (labels, count) in [
        (r#"{route="/invocations",method="POST",status="200"}"#, 1.0),
        (r#"{route="/invocations",method="POST",status="400"}"#, 1.0),
        (r#"{route="unknown",method="GET",status="404"}"#, 1.0),
        (r#"{route="/ping",method="other",status="405"}"#, 1.0),
    ] {
        assert_eq!(value(&text, &format!("ahi_inference_requests_total{labels}")), count);
    }
    assert!(!text.contains("Doe") && !text.contains("BREW"), "{text}");
    assert_eq!(value(&text, "ahi_inference_received_bytes_total"), (sent + 2) as f64);
    assert!(value(&text, "ahi_inference_sent_bytes_total") > answered.body.len() as f64);
    assert_eq!(value(&text, "ahi_inference_queue_seconds_count"), 1.0);
    assert!(value(&text, "ahi_inference_resident_bytes") > 1e6);

    // One request runs, one waits.
    let busy = body(json!({"model": "slow-700"})).to_string();
    let request = super::harness::request("POST /invocations", &[], busy.as_bytes());
    let both = async { tokio::join!(server.raw(&request), server.raw(&request)) };
    let seen = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        metrics(&server).await
    };
    let (_, text) = tokio::join!(both, seen);
    assert_eq!(value(&text, "ahi_inference_requests_running"), 1.0);
    assert_eq!(value(&text, "ahi_inference_requests_waiting"), 1.0);
}

#[tokio::test]
async fn info_names_models_and_limits() {
    let server = server();
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("configs")).unwrap();
    std::fs::write(dir.path().join("configs/inference.json"), "{}").unwrap();
    let url = dir.path().to_str().unwrap();
    let load = json!({"model_name": "m", "url": url}).to_string();
    assert_eq!(server.send("POST /models", &[], load.as_bytes()).await.status, 200);
    let info = server.send("GET /info", &[], b"").await.json();
    assert_eq!(info["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(info["models"], json!([{"name": "m", "url": url, "state": "ready", "bytes": 500}]));
    assert_eq!(info["limits"]["modelMemoryBytes"], BUDGET);
    assert_eq!(info["limits"]["requestsRunning"], 4);
    assert_eq!(info["limits"]["requestSeconds"], 20.0);
    assert_eq!(info["limits"]["streamSeconds"], 30.0);
    let text = metrics(&server).await;
    assert_eq!(value(&text, r#"ahi_inference_models{state="ready"}"#), 1.0);
    assert_eq!(value(&text, "ahi_inference_model_bytes"), 500.0);
    assert_eq!(value(&text, "ahi_inference_model_budget_bytes"), BUDGET as f64);
}

#[tokio::test]
async fn the_description_has_every_route_and_no_other() {
    let server = server();
    let document = server.send("GET /openapi.json", &[], b"").await.json();
    let mut described = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys().filter(|k| *k != "parameters") {
            described.push(format!("{} {path}", method.to_uppercase()));
        }
    }
    // The routes that the server lists when asked for an unknown one.
    let unknown = server.send("GET /nowhere", &[], b"").await.json();
    let routes = unknown["error"]["details"]["routes"].as_array().unwrap();
    let mut routes: Vec<String> = routes.iter().map(|r| r.as_str().unwrap().to_owned()).collect();
    described.sort();
    routes.sort();
    assert_eq!(described, routes);
    // Each is routed: neither unknown nor without its method.
    for route in &routes {
        let answer = server.send(&route.replace("{name}", "m"), &[], b"").await;
        let code =
            if answer.status < 400 { Value::Null } else { answer.json()["error"]["code"].clone() };
        assert!(code != "route_not_found" && code != "method_not_allowed", "{route}: {code}");
        let (method, path) = route.split_once(' ').unwrap();
        let statuses =
            document["paths"][path][method.to_lowercase()]["responses"].as_object().unwrap();
        let status = answer.status.to_string();
        assert!(statuses.contains_key(&status), "{route} answers {status}, which is not described");
    }
}
