use ahi_inference::bundle::check_report;
#[test]
fn dump() {
    let dir = crate::common::shared("bundles").unwrap();
    let mut names: Vec<_> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    names.push(crate::common::shared("models/ct_bone_unet").unwrap());
    names.sort();
    for path in names {
        let report = check_report(&path, &|_, c| Ok(serde_json::to_string(&c.args).unwrap())).unwrap();
        println!("===== {}\n{report}", path.file_name().unwrap().to_string_lossy());
        match ahi_inference::bundle::BundleConfig::read(&path) {
            Ok(c) => println!("READ keys {:?} id {} ", c.image_keys, c.preprocessing_id),
            Err(e) => println!("ERR {e:?}"),
        }
    }
}
