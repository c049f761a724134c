//! The HealthImaging emulator as the server's own client sees it.

use std::collections::BTreeMap;
use std::path::Path;

use ahi_inference::codec::{self, FrameFormat};
use ahi_inference::dicom::{FrameKey, p10};
use ahi_inference::emulator::api::{Options, router};
use ahi_inference::emulator::import::import;
use ahi_inference::emulator::store::Store;
use ahi_inference::error::ErrorKind;
use ahi_inference::phantom::PhantomArgs;
use ahi_inference::source::ahi::{AhiClient, AhiSettings, AhiSource, ImageSetId};
use ahi_inference::source::aws::{self, AwsSettings};
use ahi_inference::source::{EncodedFrame, ImageSource};
use dicom_core::{DataElement, PrimitiveValue, VR};
use dicom_dictionary_std::tags;
use futures::TryStreamExt;

use super::common::shared;
use super::end_to_end::{FromFlags, unzip};

/// Serves a store on loopback until the test's runtime ends.
pub(super) async fn serve(store: Store, options: Options) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router(store, options)).await });
    format!("http://{address}")
}

pub(super) async fn client(endpoint: String) -> AhiClient {
    let settings = AwsSettings {
        region: Some("us-east-1".to_owned()),
        ahi_endpoint: Some(endpoint),
        ..AwsSettings::default()
    };
    let config = aws::sdk_config(&settings)
        .await
        .unwrap()
        .into_builder()
        .credentials_provider(aws_credential_types::provider::SharedCredentialsProvider::new(
            aws_credential_types::Credentials::from_keys("x", "x", None),
        ))
        .build();
    AhiClient::new(aws::ahi_client(&config, &settings), AhiSettings::default())
}

fn dicom_files(folder: &Path) -> bool {
    match shared("data/cranium_ct_dicom.zip") {
        Some(archive) => unzip(&archive, folder),
        None => return false,
    }
    true
}

#[tokio::test(flavor = "multi_thread")]
async fn imported_pixels_and_attributes_are_the_sources() {
    let (files, root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    if !dicom_files(files.path()) {
        return;
    }
    let store = Store::open(root.path()).unwrap();
    let made = import(&store, None, files.path(), &|_, _| {}).unwrap();
    assert!(made.failures.is_empty(), "{:?}", made.failures);
    let [set] = &made.image_sets[..] else { panic!("{made:?}") };
    assert_eq!((set.instances, set.frames, set.is_primary), (108, 108, true));

    let endpoint = serve(store, Options::default()).await;
    let id = ImageSetId::new(&made.datastore_id, &set.image_set_id).unwrap();
    let source = AhiSource::new(client(endpoint).await, id, None).unwrap();
    let series = source.series().await.unwrap();
    let originals: BTreeMap<String, p10::P10Instance> = p10::list_files(files.path())
        .unwrap()
        .iter()
        .map(|path| p10::read(path).unwrap())
        .map(|instance| (instance.sop_instance_uid.clone(), instance))
        .collect();
    let keys: Vec<FrameKey> =
        (0..series.instances.len()).map(|instance| FrameKey { instance, frame: 0 }).collect();
    let frames: Vec<EncodedFrame> = source.frames(&series, keys).try_collect().await.unwrap();
    assert_eq!(frames.len(), 108);
    for frame in frames {
        let instance = &series.instances[frame.key.instance];
        let original = &originals[&instance.sop_instance_uid];
        for element in &original.dataset {
            let tag = element.header().tag;
            let read = instance.dataset.element(tag).unwrap_or_else(|_| panic!("{tag} is lost"));
            assert_eq!(read.value().to_str().ok(), element.value().to_str().ok(), "{tag}");
        }
        let format = FrameFormat::from_dataset(&instance.dataset).unwrap();
        let samples = codec::decode(&instance.transfer_syntax, &frame.data, &format).unwrap();
        let expected = codec::decode(&original.transfer_syntax, &original.frames[0], &format);
        assert_eq!(samples, expected.unwrap());
        let descriptor = &instance.frames[0];
        assert_eq!(descriptor.crc32, Some(samples.crc32(format.bits_allocated)));
        assert_eq!(descriptor.dimensions, Some((format.columns, format.rows)));
    }
}

/// Copies DICOM files, replacing the Patient ID.
fn with_patient_id(from: &Path, to: &Path, id: &str) {
    std::fs::create_dir(to).unwrap();
    for path in p10::list_files(from).unwrap() {
        let mut file = dicom_object::open_file(&path).unwrap();
        file.put(DataElement::new(tags::PATIENT_ID, VR::LO, PrimitiveValue::from(id)));
        file.write_to_file(to.join(path.file_name().unwrap())).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_or_not_primary_is_said() {
    let (files, root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let out = files.path().join("p");
    PhantomArgs::from_flags(&["--out", out.to_str().unwrap(), "--size", "64", "--slices", "12"])
        .run()
        .await
        .unwrap();
    let store = Store::open(root.path()).unwrap();
    let first = import(&store, None, &out.join("dicom"), &|_, _| {}).unwrap();
    let datastore = first.datastore_id;
    // Importing the same files again creates another version of the same image set.
    let again = import(&store, Some(&datastore), &out.join("dicom"), &|_, _| {}).unwrap();
    let id = &first.image_sets[0].image_set_id;
    assert_eq!((&again.image_sets[0].image_set_id, again.image_sets[0].version), (id, 2));
    // Instances of the same series with another Patient ID conflict with it.
    let other = out.join("other");
    with_patient_id(&out.join("dicom"), &other, "another");
    let second = import(&store, Some(&datastore), &other, &|_, _| {}).unwrap();
    assert!(!second.image_sets[0].is_primary && second.image_sets[0].image_set_id != *id);
    let missing = import(&store, Some(&"0".repeat(32)), &out.join("dicom"), &|_, _| {});
    assert_eq!(missing.unwrap_err().kind(), ErrorKind::NotFound);

    let client = client(serve(store, Options::default()).await).await;
    let series = async |set: &str| {
        let id = ImageSetId::new(&datastore, set).unwrap();
        AhiSource::new(client.clone(), id, None).unwrap().series().await
    };
    assert!(series(&first.image_sets[0].image_set_id).await.is_ok());
    let e = series(&second.image_sets[0].image_set_id).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::ImageSetNotReady, "{e}");
    let e = series(&"z".repeat(32)).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::NotFound, "{e}");
}
