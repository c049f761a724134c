//! Tests of parsing and rejecting JSON requests.

use serde_json::{Value, json};

use super::*;

const ID: &str = "0123456789abcdef0123456789abcdef";

fn read(body: Value) -> Result<Body> {
    parse(body.to_string().as_bytes(), 64)
}

#[test]
fn both_forms_say_the_same() {
    let bare = read(json!({"datastoreId": ID, "imageSetId": ID, "versionId": "2"})).unwrap();
    let inputs = json!([{"datastoreId": ID, "imageSetId": ID, "versionId": "2"}]);
    assert_eq!(read(json!({ "inputs": inputs })).unwrap(), bare);
    assert_eq!(
        bare.inputs,
        [Input::ImageSet {
            datastore_id: ID.to_owned(),
            image_set_id: ID.to_owned(),
            version_id: Some("2".to_owned()),
        }]
    );
}

#[test]
fn images_are_read_by_their_names() {
    let set = json!({"datastoreId": ID, "imageSetId": ID});
    let images = json!({"images": {"T1": set, "FLAIR": set}});
    let bare = read(images.clone()).unwrap();
    assert_eq!(read(json!({"inputs": [images]})).unwrap(), bare);
    let Input::Images(images) = &bare.inputs[0] else { panic!("{bare:?}") };
    let names: Vec<Option<&str>> = images.iter().map(|(name, _)| name.as_deref()).collect();
    assert_eq!(names, [Some("T1"), Some("FLAIR")]);
    let Input::Images(listed) = &read(json!({"images": [set, set]})).unwrap().inputs[0] else {
        panic!("one image");
    };
    assert!(listed.len() == 2 && listed.iter().all(|(name, _)| name.is_none()));
    for body in [
        json!({"images": {}}),
        json!({"images": []}),
        json!({"images": [[ID, ID]]}),
        json!({"images": "Doe^Jane"}),
        json!({"images": {"T1": set}, "datastoreId": ID}),
        json!({"inputs": [{"images": {"Doe^Jane": {"datastoreId": ID}}}]}),
        json!({"inputs": [{"images": {"Doe^Jane": {"datastoreId": ID, "imageSetId": "x"}}}]}),
    ] {
        let error = read(body.clone()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{body}");
    }
}

#[test]
fn studies_and_places_in_s3_are_read() {
    let uid = "1.2.840.1";
    let body = read(json!({"datastoreId": ID, "studyInstanceUID": uid})).unwrap();
    assert!(matches!(&body.inputs[0], Input::Study { series_instance_uid: None, .. }));
    let s3 = json!({"s3Uri": "s3://bucket/a.zip", "seriesInstanceUID": uid});
    let body = read(json!({"inputs": [s3], "outputs": ["nifti"]})).unwrap();
    assert!(matches!(&body.inputs[0], Input::S3 { series_instance_uid: Some(_), .. }));
    assert!(body.request_object().is_none());
    let images = read(json!({"images": {"T1": s3, "T2": {"s3Uri": "s3://bucket/b/"}}}));
    assert!(matches!(&images.unwrap().inputs[0], Input::Images(list) if list.len() == 2));
    for (body, path) in [
        (json!({"s3Uri": "https://x/Doe"}), "s3Uri"),
        (json!({"s3Uri": "s3://bucket/a", "imageSetId": ID}), "imageSetId"),
        (json!({"inputs": [{"s3Uri": "s3://bucket/a", "versionId": "1"}]}), "inputs[0].versionId"),
        (json!({"studyInstanceUID": uid}), "datastoreId"),
        (json!({"datastoreId": ID, "studyInstanceUID": "Doe^Jane"}), "studyInstanceUID"),
        (json!({"datastoreId": ID, "studyInstanceUID": uid, "imageSetId": ID}), "imageSetId"),
        (
            json!({"datastoreId": ID, "imageSetId": ID, "seriesInstanceUID": uid}),
            "seriesInstanceUID",
        ),
    ] {
        let error = read(body.clone()).unwrap_err();
        assert_eq!(error.details()["path"], path, "{body}: {error}");
        assert!(!format!("{error:?}").contains("Doe"), "{error:?}");
    }
}

#[test]
fn a_request_in_s3_has_the_last_word_on_inputs_alone() {
    let outer = read(json!({"s3Uri": "s3://bucket/a.JSON", "model": "outer"})).unwrap();
    assert_eq!(outer.request_object().as_deref(), Some("s3://bucket/a.JSON"));
    let inner = json!({"datastoreId": ID, "imageSetId": ID, "model": "inner",
                       "outputS3Uri": "s3://bucket/out"});
    let both = outer.over(read(inner).unwrap());
    assert!(matches!(both.inputs[0], Input::ImageSet { .. }));
    assert_eq!(both.model.as_deref(), Some("outer"));
    assert_eq!(both.output_uri.as_deref(), Some("s3://bucket/out"));
}

#[test]
fn options_are_read() {
    let body = read(json!({
        "inputs": [{"datastoreId": ID, "imageSetId": ID, "versionId": null}],
        "model": "spleen", "outputs": ["nifti", "dicom-seg"], "outputS3Uri": "s3://bucket/a",
    }))
    .unwrap();
    assert_eq!(body.model.as_deref(), Some("spleen"));
    assert_eq!(body.outputs, [OutputKind::Nifti, OutputKind::DicomSeg]);
    assert_eq!(body.output_uri.as_deref(), Some("s3://bucket/a"));
}

#[test]
fn the_encoding_of_a_segmentation_is_read() {
    use crate::dicom::encoding::FrameEncoding;
    let with = |segmentation: Value| {
        json!({"datastoreId": ID, "imageSetId": ID, "outputs": ["dicom-seg-labelmap"],
               "segmentation": segmentation})
    };
    for (name, encoding) in [
        ("native", FrameEncoding::Native),
        ("rle", FrameEncoding::Rle),
        ("htj2k", FrameEncoding::Htj2k),
    ] {
        let body = read(with(json!({"transferSyntax": name}))).unwrap();
        assert_eq!(body.outputs, [OutputKind::DicomSegLabelmap]);
        assert_eq!(body.segmentation.transfer_syntax, Some(encoding));
    }
    let silent = read(with(json!({}))).unwrap();
    assert_eq!(silent.segmentation, SegmentationChoice::default());
    // Options beside a request in S3 override those in the request.
    let outer = read(with(json!({"transferSyntax": "native"}))).unwrap();
    let inner = read(with(json!({"transferSyntax": "rle"}))).unwrap();
    let native = Some(FrameEncoding::Native);
    assert_eq!(outer.over(read(with(json!({}))).unwrap()).segmentation.transfer_syntax, native);
    assert_eq!(silent.over(inner).segmentation.transfer_syntax, Some(FrameEncoding::Rle));
    for (segmentation, path) in [
        (json!({"transferSyntax": "Doe^Jane"}), "segmentation.transferSyntax"),
        (json!({"transfersyntax": "rle"}), "segmentation"),
        (json!(["rle"]), "segmentation"),
    ] {
        let error = read(with(segmentation)).unwrap_err();
        assert!(error.message().contains(path) && !error.message().contains("Doe"), "{error}");
    }
}

#[test]
fn errors_name_the_path_and_no_value() {
    let set = json!({"datastoreId": ID, "imageSetId": ID});
    let with = |key: &str, value: Value| {
        let mut all = set.clone();
        all[key] = value;
        all
    };
    for (body, path) in [
        (json!({}), "inputs"),
        (json!({"inputs": []}), "inputs"),
        (json!({"inputs": "Doe^Jane"}), "inputs"),
        (json!({"inputs": [set, 7]}), "inputs[1]"),
        (json!({"inputs": [with("patient", json!("Doe^Jane"))]}), "inputs[0].patient"),
        (json!({"inputs": [with("imageSetId", json!("Doe^Jane"))]}), "inputs[0].imageSetId"),
        (json!({"inputs": [set], "datastoreId": ID, "imageSetId": ID}), "inputs"),
        (json!({"inputs": [{"datastoreId": ID}]}), "inputs[0]"),
        (json!({"datastoreId": ID}), "imageSetId"),
        (json!({"imageSetId": ID}), "datastoreId"),
        (with("versionId", json!("Doe^Jane")), "versionId"),
        (with("versionId", json!(2)), "versionId"),
        (with("model", json!({"Doe^Jane, expected x": 1})), "model"),
        (with("outputs", json!(["stl, expected Doe^Jane"])), "outputs[0]"),
        (with("outputs", json!(["nifti", "nifti"])), "outputs[1]"),
        (with("outputs", json!([])), "outputs"),
        (with("outputS3Uri", json!("file:///etc/Doe^Jane")), "outputS3Uri"),
        (with("outputS3Uri", json!("https://Doe^Jane")), "outputS3Uri"),
        (with("extra", json!("Doe^Jane")), "extra"),
        (json!(["Doe^Jane"]), "."),
        (json!("Doe^Jane"), "."),
        (json!({"inputs": [[ID, ID, null]]}), "inputs[0]"),
    ] {
        let error = read(body.clone()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{body}");
        assert_eq!(error.details()["path"], path, "{body}: {error}");
        assert!(!format!("{error:?}").contains("Doe"), "{error:?}");
    }
}

#[test]
fn repeated_fields_and_trailing_text_are_refused() {
    let twice = format!(r#"{{"datastoreId":"{ID}","imageSetId":"{ID}","imageSetId":"{ID}"}}"#);
    assert!(parse(twice.as_bytes(), 64).unwrap_err().message().contains("imageSetId"));
    let trailing = format!(r#"{{"datastoreId":"{ID}","imageSetId":"{ID}"}} x"#);
    assert!(parse(trailing.as_bytes(), 64).unwrap_err().message().contains("not JSON"));
    assert!(parse(b"{\"inputs\":", 64).unwrap_err().message().contains("too early"));
    assert!(parse(b"", 64).is_err() && parse(b"\xff", 64).is_err());
    assert!(parse("[".repeat(100_000).as_bytes(), 64).is_err());
}

#[test]
fn lists_and_texts_are_bounded_while_they_are_read() {
    let set = json!({"datastoreId": ID, "imageSetId": ID});
    let inputs = |n: usize| json!({"inputs": vec![set.clone(); n]});
    assert_eq!(read(inputs(64)).unwrap().inputs.len(), 64);
    let error = read(inputs(65)).unwrap_err();
    assert!(error.message().contains("more than 64"), "{error}");
    assert_eq!(error.details()["path"], "inputs");
    for (body, path) in [
        (json!({"images": vec![set.clone(); 65]}), "images"),
        (json!({"inputs": [{"images": vec![set.clone(); 65]}]}), "inputs[0].images"),
        (json!({"outputs": vec!["nifti"; 17]}), "outputs"),
        (json!({"studyInstanceUID": "1".repeat(65)}), "studyInstanceUID"),
        (json!({"imageSetId": "a".repeat(33)}), "imageSetId"),
        (json!({"s3Uri": format!("s3://bucket/{}", "a".repeat(2000))}), "s3Uri"),
        (json!({"model": "m".repeat(1025)}), "model"),
    ] {
        let error = read(body).unwrap_err();
        assert_eq!(error.details()["path"], path, "{error}");
        assert!(error.message().contains("at most"), "{error}");
    }
}

#[test]
fn floods_of_inputs_are_refused_where_they_pass_the_bound() {
    // 25 MiB of inputs; nothing is parsed beyond the limit, so the rest may be anything.
    let flood = format!("{{\"inputs\":[{}", "{},".repeat(8 << 20));
    let started = std::time::Instant::now();
    let error = parse(flood.as_bytes(), 64).unwrap_err();
    assert!(error.message().contains("at most 1024"), "{error}");
    let missing = format!("{{\"inputs\":[{}{{}}]}}", "{},".repeat(64));
    assert!(parse(missing.as_bytes(), 64).unwrap_err().message().contains("more than 64"));
    assert!(started.elapsed() < std::time::Duration::from_secs(5), "{:?}", started.elapsed());
}

#[test]
fn a_volume_and_policies_are_read() {
    use crate::policy::{Gaps, Value as Trait, VolumeChoice, Volumes};
    let set = json!({"datastoreId": ID, "imageSetId": ID, "volume": {"EchoTime": 4.6}});
    let policy = json!({"gaps": "interpolate", "volumes": "each"});
    let body = read(json!({"inputs": [set], "policy": policy})).unwrap();
    assert_eq!(body.policy.gaps, Some(Gaps::Interpolate));
    assert_eq!((body.policy.volumes, body.policy.mismatch), (Some(Volumes::Each), None));
    let Input::Volume { choice, of } = &body.inputs[0] else { panic!("{body:?}") };
    let attributes = vec![("EchoTime".to_owned(), Trait::Number(4.6))];
    assert_eq!(*choice, VolumeChoice::Attributes(attributes));
    assert!(matches!(**of, Input::ImageSet { .. }));
    let bare = read(json!({"datastoreId": ID, "imageSetId": ID, "volume": 2})).unwrap();
    assert!(matches!(&bare.inputs[0], Input::Volume { choice: VolumeChoice::Number(2), .. }));
    for (wrong, path) in [
        (json!({"datastoreId": ID, "imageSetId": ID, "volume": 0}), "volume"),
        (json!({"datastoreId": ID, "imageSetId": ID, "volume": []}), "volume"),
        (json!({"volume": 1}), "datastoreId"),
        (
            json!({"datastoreId": ID, "imageSetId": ID, "policy": {"gaps": "average"}}),
            "policy.gaps",
        ),
        (json!({"datastoreId": ID, "imageSetId": ID, "policy": ["interpolate"]}), "policy"),
        (json!({"datastoreId": ID, "imageSetId": ID, "policy": {"gap": "refuse"}}), "policy"),
    ] {
        let e = read(wrong.clone()).unwrap_err();
        assert!(e.message().contains(path), "{wrong}: {e}");
        assert!(!e.message().contains("average") && !e.message().contains("interpolate\""), "{e}");
    }
}

#[test]
fn stores_are_read() {
    let store = |value: Value| read(json!({"datastoreId": ID, "imageSetId": ID, "store": value}));
    let said = |value| store(value).unwrap().store;
    assert_eq!(said(json!(null)), Store::Unsaid);
    assert_eq!(said(json!(true)), Store::In(Archive::Input));
    assert_eq!(said(json!(false)), Store::Nowhere);
    assert_eq!(said(json!({"datastoreId": ID})), Store::In(Archive::Datastore(ID.to_owned())));
    let Store::In(Archive::Service(url)) =
        said(json!({"dicomweb": "https://A.example/dicom-web/"}))
    else {
        panic!("no service")
    };
    assert_eq!(url.to_string(), "https://a.example/dicom-web");
    for value in [
        json!("true"),
        json!(1),
        json!([]),
        json!({}),
        json!({"datastoreId": "Doe^Jane"}),
        json!({"datastoreId": null}),
        json!({"datastoreId": ID, "dicomweb": "https://a.example"}),
        json!({"dicomweb": "https://a.example", "dicomweb2": 1}),
        json!({"dicomweb": "https://Doe:Jane@a.example"}),
        json!({"dicomweb": "https://a.example/../Doe"}),
        json!({"dicomweb": "file:///etc/Doe"}),
        json!({"dicomweb": format!("https://a.example/{}", "a".repeat(2000))}),
        json!({"bucket": "Doe^Jane"}),
    ] {
        let error = store(value.clone()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{value}");
        assert!(error.message().contains("store"), "{value}: {error}");
        assert!(!format!("{error:?}").contains("Doe"), "{error:?}");
    }
}

#[test]
fn what_is_said_beside_a_request_in_s3_goes_before_it() {
    let set = json!({"datastoreId": ID, "imageSetId": ID, "store": true});
    let inner = read(set).unwrap();
    let outer = |store| read(json!({"s3Uri": "s3://bucket/a.json", "store": store})).unwrap();
    assert_eq!(outer(json!(false)).over(inner).store, Store::Nowhere);
    let inner = read(json!({"datastoreId": ID, "imageSetId": ID, "store": true})).unwrap();
    assert_eq!(outer(json!(null)).over(inner).store, Store::In(Archive::Input));
}
