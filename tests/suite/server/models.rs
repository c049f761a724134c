//! The multi-model contract over HTTP.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use ahi_inference::registry::Roots;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::harness::{Answer, Server, Setup, body, eventually, request};

fn server() -> Server {
    let server = Server::start(Setup { multi_model: true, ..Setup::default() });
    server.readiness.started(true);
    server
}

/// Creates a folder with a bundle nested in it.
fn package() -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let configs = dir.path().join("any name/configs");
    std::fs::create_dir_all(&configs).unwrap();
    std::fs::write(configs.join("inference.json"), "{}").unwrap();
    let url = dir.path().to_str().unwrap().to_owned();
    (dir, url)
}

async fn load(server: &Server, name: &str, url: &str) -> Answer {
    let body = json!({"model_name": name, "url": url}).to_string();
    server.send("POST /models", &[("Content-Type", "application/json")], body.as_bytes()).await
}

#[tokio::test]
async fn models_are_loaded_shown_listed_used_and_unloaded() {
    let server = server();
    assert_eq!(server.ping().await, 200, "healthy without any model");
    let (_dir, url) = package();
    // Names may hold any characters, percent-encoded in the path.
    let (name, path) = ("a/b ä?#%.tar.gz", "/models/a%2Fb%20%C3%A4%3F%23%25.tar.gz");
    let loaded = load(&server, name, &url).await;
    assert_eq!(loaded.status, 200, "{loaded:?}");
    assert_eq!(loaded.json(), json!({"modelName": name, "modelUrl": url}));
    load(&server, name, &url).await.error(409, "model_already_loaded");

    let shown = server.send(&format!("GET {path}"), &[], b"").await;
    assert_eq!((shown.status, shown.json()), (200, loaded.json()));
    let listed = server.send("GET /models", &[], b"").await;
    assert_eq!(listed.json(), json!({"models": [loaded.json()]}));

    let target = [("X-Amzn-SageMaker-Target-Model", "organs/spleen.tar.gz")];
    let request = body(json!({})).to_string();
    let invoke = format!("POST {path}/invoke");
    let answer = server.send(&invoke, &target, request.as_bytes()).await;
    assert_eq!((answer.status, &answer.json()["model"]), (200, &json!(name)));
    let other = body(json!({"model": "lung"})).to_string();
    server.send(&invoke, &target, other.as_bytes()).await.error(400, "invalid_request");

    let unloaded = server.send(&format!("DELETE {path}"), &[], b"").await;
    assert_eq!((unloaded.status, unloaded.json()), (200, loaded.json()));
    for start in [format!("GET {path}"), format!("DELETE {path}"), invoke] {
        let gone = server.send(&start, &[], request.as_bytes()).await;
        gone.error(404, "model_not_found");
    }
    assert_eq!(server.send("GET /models", &[], b"").await.json(), json!({"models": []}));
    assert_eq!(server.ping().await, 200);
}

#[tokio::test]
async fn what_cannot_be_loaded_says_why() {
    let server = server();
    let (_dir, url) = package();
    load(&server, "huge", &url).await.error(507, "out_of_memory");
    load(&server, "out_of_memory", &url).await.error(507, "out_of_memory");
    load(&server, "invalid_model", &url).await.error(422, "invalid_model");
    load(&server, "m", "/no/such/folder").await.error(422, "invalid_model");
    load(&server, "m", "models/m").await.error(400, "invalid_request");
    load(&server, "", &url).await.error(400, "invalid_request");
    for body in ["", "{}", "[]", r#"{"model_name": 7, "url": "/m"}"#] {
        server.send("POST /models", &[], body.as_bytes()).await.error(400, "invalid_request");
    }
    let (_several, folder) = package();
    std::fs::create_dir_all(format!("{folder}/second/configs")).unwrap();
    std::fs::write(format!("{folder}/second/configs/inference.json"), "{}").unwrap();
    let message = load(&server, "m", &folder).await.error(422, "invalid_model");
    assert!(message.contains("2 MONAI bundles"), "{message}");
    server.send("GET /models/%ff", &[], b"").await.error(400, "invalid_request");
    server.send("PUT /models/m", &[], b"").await.error(405, "method_not_allowed");
    assert_eq!(server.send("GET /models", &[], b"").await.json(), json!({"models": []}));
}

#[tokio::test]
async fn models_are_loaded_only_from_below_the_roots() {
    let (inside, url) = package();
    let (_outside, other) = package();
    let root = inside.path().canonicalize().unwrap();
    std::os::unix::fs::symlink(&other, root.join("link")).unwrap();
    let roots = Some(Roots::new(vec![root]));
    let server = Server::start(Setup { multi_model: true, roots, ..Setup::default() });
    server.readiness.started(true);
    let refused = load(&server, "m", "/no/such/folder").await.error(403, "access_denied");
    assert!(refused.contains("MODEL_ROOTS"), "{refused}");
    for outside in [
        other.clone(),
        format!("{url}/../{other}"),
        format!("{url}/link"),
        "/etc/passwd".to_owned(),
    ] {
        let same = load(&server, "m", &outside).await.error(403, "access_denied");
        assert_eq!(same, refused, "{outside}");
    }
    // A link inside the folder itself also leads outside.
    load(&server, "m", &url).await.error(403, "access_denied");
    std::fs::remove_file(format!("{url}/link")).unwrap();
    let loaded = load(&server, "m", &url).await;
    assert_eq!((loaded.status, &loaded.json()["modelUrl"]), (200, &json!(url)));
    load(&server, "n", &format!("{url}/no/such/folder")).await.error(422, "invalid_model");
    let listed = server.send("GET /models", &[], b"").await.json();
    assert_eq!(listed, json!({"models": [loaded.json()]}));
}

#[tokio::test]
async fn a_list_has_pages() {
    let server = server();
    let (_dir, url) = package();
    let mut names: Vec<String> = (0..7).map(|i| format!("m/{i} ü")).collect();
    for name in &names {
        assert_eq!(load(&server, name, &url).await.status, 200);
    }
    let (mut seen, mut query) = (Vec::new(), String::new());
    loop {
        let page = server.send(&format!("GET /models?limit=3{query}"), &[], b"").await.json();
        let models = page["models"].as_array().unwrap();
        assert!(models.len() <= 3);
        seen.extend(models.iter().map(|m| m["modelName"].as_str().unwrap().to_owned()));
        match page.get("nextPageToken").and_then(Value::as_str) {
            Some(token) => query = format!("&next_page_token={token}"),
            None => break,
        }
    }
    names.sort();
    assert_eq!(seen, names);
    for bad in ["limit=0", "limit=101", "limit=x", "next_page_token=%20"] {
        let answer = server.send(&format!("GET /models?{bad}"), &[], b"").await;
        answer.error(400, "invalid_request");
    }
}

#[tokio::test]
async fn a_load_holds_nobody_up_and_happens_once() {
    let server = Arc::new(server());
    let (_dir, url) = package();
    assert_eq!(load(&server, "quick", &url).await.status, 200);
    let loading = tokio::spawn({
        let (server, url) = (Arc::clone(&server), url.clone());
        async move { load(&server, "late-600", &url).await.status }
    });
    let body = body(json!({})).to_string();
    let mut refused = 0;
    while !loading.is_finished() {
        assert_eq!(server.ping().await, 200);
        let answer = server.send("POST /models/quick/invoke", &[], body.as_bytes()).await;
        assert_eq!(answer.status, 200);
        let answer = server.send("POST /models/late-600/invoke", &[], body.as_bytes()).await;
        if answer.status == 404 {
            let again = load(&server, "late-600", &url).await;
            assert_eq!(again.status, 409);
            refused += 1;
        }
    }
    assert_eq!(loading.await.unwrap(), 200);
    assert!(refused > 0);
}

#[tokio::test]
async fn a_client_that_hangs_up_cancels_its_work_on_a_model() {
    let server = server();
    let (_dir, url) = package();
    // The stand-in takes a minute to answer a request for this model.
    assert_eq!(load(&server, "slow-60000", &url).await.status, 200);
    let mut client = server.connect().await;
    let body = body(json!({})).to_string();
    let bytes = request("POST /models/slow-60000/invoke", &[], body.as_bytes());
    client.write_all(&bytes).await.unwrap();
    eventually("started", || server.stand_in.started.load(SeqCst) == 1).await;
    drop(client);
    eventually("cancelled", || server.stand_in.cancelled.load(SeqCst) == 1).await;
}

#[tokio::test]
async fn without_the_switch_there_are_no_such_routes() {
    let server = Server::ready();
    for start in ["GET /models", "POST /models", "DELETE /models/m", "POST /models/m/invoke"] {
        let answer = server.send(start, &[], b"{}").await;
        let message = answer.error(404, "route_not_found");
        assert!(message.contains("POST /invocations") && !message.contains("/models"), "{message}");
    }
}

#[tokio::test]
async fn nothing_is_loaded_while_the_server_stops() {
    let server = server();
    let (_dir, url) = package();
    assert_eq!(load(&server, "quick", &url).await.status, 200);
    let running = tokio::spawn({
        let body = body(json!({"model": "slow-500"})).to_string();
        let bytes = request("POST /invocations", &[], body.as_bytes());
        let mut stream = server.connect().await;
        async move {
            stream.write_all(&bytes).await.unwrap();
            let mut received = Vec::new();
            stream.read_to_end(&mut received).await.unwrap();
            Answer::parse(&received).status
        }
    });
    eventually("started", || server.stand_in.started.load(SeqCst) == 1).await;
    server.shutdown.cancel();
    tokio::time::sleep(Duration::from_millis(50)).await;
    load(&server, "late", &url).await.error(503, "unavailable");
    assert_eq!(running.await.unwrap(), 200);
}
