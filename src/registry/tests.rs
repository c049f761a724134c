//! Tests the registry with models that are strings and a loader that can be held up.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use super::*;

/// Loads the name of a model. `broken` fails, `panics` panics, and a load of `slow` waits for a
/// message if there is a channel.
#[derive(Default)]
struct Names {
    held: Option<Mutex<mpsc::Receiver<()>>>,
    slow: &'static str,
    loads: Arc<AtomicUsize>,
}

impl Loader<String> for Names {
    fn estimate(&self, location: &ModelLocation) -> Result<u64> {
        if location.name == "huge" { Ok(1000) } else { Ok(60) }
    }

    fn load(&self, location: &ModelLocation) -> Result<(String, u64)> {
        self.loads.fetch_add(1, Ordering::SeqCst);
        if let Some(held) = self.held.as_ref().filter(|_| location.name == self.slow) {
            held.lock().unwrap().recv().unwrap();
        }
        match location.name.as_str() {
            "broken" => Err(Error::new(ErrorKind::InvalidModel, "no model.onnx").with("path", "x")),
            "panics" => panic!("a defect"),
            name => Ok((format!("model {name}"), 40)),
        }
    }
}

/// A loader that waits, and the sender that releases it.
fn held(slow: &'static str) -> (Names, mpsc::Sender<()>, Arc<AtomicUsize>) {
    let (release, waits) = mpsc::channel();
    let names = Names { held: Some(Mutex::new(waits)), slow, ..Names::default() };
    let loads = Arc::clone(&names.loads);
    (names, release, loads)
}

fn folders(loader: Names) -> Registry<String> {
    Registry::new(loader, Budget::unbounded(), Naming::Folders, 4)
}

fn opaque(loader: Names) -> Arc<Registry<String>> {
    Arc::new(Registry::new(loader, Budget::of(100), Naming::Opaque, 4))
}

fn locations(names: &[&str]) -> Vec<ModelLocation> {
    let location = |&name: &&str| ModelLocation { name: name.to_owned(), path: name.into() };
    names.iter().map(location).collect()
}

/// A folder that contains a bundle.
fn package() -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let configs = dir.path().join("nested/configs");
    std::fs::create_dir_all(&configs).unwrap();
    std::fs::write(configs.join("inference.json"), "{}").unwrap();
    let url = dir.path().to_str().unwrap().to_owned();
    (dir, url)
}

async fn until(condition: impl Fn() -> bool) {
    for _ in 0..5000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("never");
}

#[tokio::test]
async fn one_model_needs_no_name() {
    let one = folders(Names::default());
    assert_eq!(one.load_all(locations(&["spleen"])).await, 1);
    for name in [None, Some("spleen"), Some("spleen.tar.gz"), Some("model.tar.gz")] {
        assert_eq!(*one.get(name).unwrap(), "model spleen", "{name:?}");
    }
    let error = one.get(Some("lung")).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::ModelNotFound);
    assert!(error.message().contains("spleen"), "{error}");
}

#[tokio::test]
async fn several_models_are_chosen_by_name_and_fail_alone() {
    let several = folders(Names::default());
    assert_eq!(several.load_all(locations(&["spleen", "broken", "lung", "panics"])).await, 2);
    assert_eq!(*several.get(Some("lung")).unwrap(), "model lung");
    for name in [None, Some("model.tar.gz"), Some("")] {
        let error = several.get(name).err().unwrap();
        let expected =
            if name.is_none() { ErrorKind::InvalidRequest } else { ErrorKind::ModelNotFound };
        assert_eq!(error.kind(), expected);
        assert!(error.message().contains("broken, lung, panics, spleen"), "{error}");
    }
    for _ in 0..2 {
        let error = several.get(Some("broken.tar.gz")).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::InvalidModel);
        assert_eq!((error.message(), &error.details()["path"]), ("no model.onnx", &"x".into()));
    }
    assert_eq!(several.get(Some("panics")).err().unwrap().kind(), ErrorKind::Internal);
}

#[tokio::test]
async fn models_load_side_by_side_and_serve_as_soon_as_they_are_ready() {
    let (loader, release, _) = held("slow");
    let both = Arc::new(folders(loader));
    let loading = tokio::spawn({
        let both = Arc::clone(&both);
        async move { both.load_all(locations(&["fast", "slow"])).await }
    });
    until(|| both.get(Some("fast")).is_ok()).await;
    assert_eq!(both.get(Some("slow")).err().unwrap().kind(), ErrorKind::Unavailable);
    release.send(()).unwrap();
    assert_eq!(loading.await.unwrap(), 2);
    assert!(both.get(Some("slow")).is_ok());
}

#[tokio::test]
async fn opaque_names_are_never_guessed() {
    let (_dir, url) = package();
    let registry = opaque(Names::default());
    assert_eq!(registry.load("a/b ä.tar.gz", &url).await.unwrap().url, url);
    assert_eq!(*registry.get(Some("a/b ä.tar.gz")).unwrap(), "model a/b ä.tar.gz");
    for other in ["a/b ä", "model.tar.gz", "model", ""] {
        assert_eq!(registry.get(Some(other)).err().unwrap().kind(), ErrorKind::ModelNotFound);
    }
    assert_eq!(registry.get(None).err().unwrap().kind(), ErrorKind::InvalidRequest);
}

#[tokio::test]
async fn a_model_is_loaded_once_however_many_ask() {
    let (_dir, url) = package();
    let (loader, release, loads) = held("m");
    let registry = opaque(loader);
    let ask = |registry: &Arc<Registry<String>>| {
        let (registry, url) = (Arc::clone(registry), url.clone());
        tokio::spawn(async move { registry.load("m", &url).await.map(|s| s.state) })
    };
    let first = ask(&registry);
    until(|| loads.load(Ordering::SeqCst) == 1).await;
    for _ in 0..7 {
        let refused = ask(&registry).await.unwrap().unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ModelAlreadyLoaded);
    }
    // The model is not found until it is ready, and others are not blocked.
    assert_eq!(registry.get(Some("m")).err().unwrap().kind(), ErrorKind::ModelNotFound);
    assert!(registry.loaded("m").is_err() && registry.page(None, 9).models.is_empty());
    assert!(registry.load("other", &url).await.is_err(), "60 of 100 bytes are taken");
    release.send(()).unwrap();
    assert_eq!(first.await.unwrap().unwrap(), "ready");
    assert_eq!(loads.load(Ordering::SeqCst), 1);
    assert_eq!(registry.budget().used(), 40);
    assert_eq!(registry.loaded("m").unwrap().bytes, 40);
}

#[tokio::test]
async fn a_caller_that_hangs_up_leaves_nothing_half_loaded() {
    let (_dir, url) = package();
    let (loader, release, loads) = held("m");
    let registry = opaque(loader);
    let caller = tokio::spawn({
        let registry = Arc::clone(&registry);
        async move { registry.load("m", &url).await.map(|_| ()) }
    });
    until(|| loads.load(Ordering::SeqCst) == 1).await;
    caller.abort();
    // Unloading waits for the load in progress.
    let unloading = tokio::spawn({
        let registry = Arc::clone(&registry);
        async move { registry.unload("m").await.map(|s| s.name) }
    });
    release.send(()).unwrap();
    assert_eq!(unloading.await.unwrap().unwrap(), "m");
    assert_eq!((registry.budget().used(), registry.all().len()), (0, 0));
}

#[tokio::test]
async fn unloading_waits_for_those_who_use_the_model_and_for_its_memory() {
    let (_dir, url) = package();
    let registry = opaque(Names::default());
    registry.load("m", &url).await.unwrap();
    let used = registry.get(Some("m")).unwrap();
    let unload = || {
        let registry = Arc::clone(&registry);
        tokio::spawn(async move { registry.unload("m").await.map(|s| s.state) })
    };
    let unloading = unload();
    until(|| registry.loaded("m").is_err()).await;
    assert_eq!(registry.get(Some("m")).err().unwrap().kind(), ErrorKind::ModelNotFound);
    assert_eq!(unload().await.unwrap().unwrap_err().kind(), ErrorKind::ModelNotFound);
    // A load of the same name waits for the name; other models load and unload meanwhile.
    let again = tokio::spawn({
        let (registry, url) = (Arc::clone(&registry), url.clone());
        async move { registry.load("m", &url).await.map(|s| s.state) }
    });
    registry.load("other", &url).await.unwrap();
    registry.unload("other").await.unwrap();
    assert!(!unloading.is_finished() && !again.is_finished());
    assert_eq!(registry.budget().used(), 40);
    drop(used);
    assert!(unloading.await.unwrap().is_ok());
    assert_eq!(again.await.unwrap().unwrap(), "ready");
}

#[tokio::test]
async fn what_cannot_be_loaded_leaves_name_and_memory_free() {
    let (_dir, url) = package();
    let registry = opaque(Names::default());
    for (name, url, kind) in [
        ("huge", url.as_str(), ErrorKind::OutOfMemory),
        ("broken", &url, ErrorKind::InvalidModel),
        ("panics", &url, ErrorKind::Internal),
        ("m", "relative", ErrorKind::InvalidRequest),
        ("m", "/does/not/exist", ErrorKind::InvalidModel),
    ] {
        for _ in 0..2 {
            let error = registry.load(name, url).await.unwrap_err();
            assert_eq!(error.kind(), kind, "{name} {url}");
        }
        assert_eq!((registry.budget().used(), registry.all().len()), (0, 0), "{name}");
        assert_eq!(registry.unload(name).await.unwrap_err().kind(), ErrorKind::ModelNotFound);
    }
    // Each model takes 60 bytes while it loads and 40 afterwards; a third does not fit.
    registry.load("a", &url).await.unwrap();
    registry.load("b", &url).await.unwrap();
    let full = registry.load("c", &url).await.unwrap_err();
    assert_eq!((full.kind(), &full.details()["usedBytes"]), (ErrorKind::OutOfMemory, &80.into()));
    registry.unload("a").await.unwrap();
    registry.load("c", &url).await.unwrap();
}

#[tokio::test]
async fn pages_follow_one_another_whatever_comes_and_goes() {
    let (_dir, url) = package();
    let registry =
        Arc::new(Registry::new(Names::default(), Budget::unbounded(), Naming::Opaque, 4));
    for name in ["a", "b", "c", "d", "e"] {
        registry.load(name, &url).await.unwrap();
    }
    let names = |page: &Page| page.models.iter().map(|m| m.name.clone()).collect::<Vec<_>>();
    let first = registry.page(None, 2);
    assert_eq!((names(&first), first.more), (vec!["a".to_owned(), "b".to_owned()], true));
    registry.unload("b").await.unwrap();
    let second = registry.page(Some("b"), 2);
    assert_eq!((names(&second), second.more), (vec!["c".to_owned(), "d".to_owned()], true));
    let last = registry.page(Some("d"), 2);
    assert_eq!((names(&last), last.more), (vec!["e".to_owned()], false));
}
