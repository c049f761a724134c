//! Tests of whole chains of transforms.

use serde_json::json;

use super::*;
use crate::volume::Affine;

fn chain(list: &[(&str, Value)], keys: &[&str]) -> Result<Preprocessing> {
    let components: Vec<Component> = list
        .iter()
        .enumerate()
        .map(|(i, (target, args))| Component {
            target: (*target).to_owned(),
            args: args.as_object().unwrap().clone(),
            path: format!("preprocessing#transforms#{i}"),
        })
        .collect();
    let keys: Vec<String> = keys.iter().map(|k| (*k).to_owned()).collect();
    Preprocessing::new(&components, &keys)
}

fn image(value: f32, size: usize, spacing: f64) -> Image {
    let mut affine = Affine::IDENTITY;
    for axis in 0..3 {
        affine.0[axis][axis] = spacing;
    }
    Image::new(Array4::from_elem((1, size, size, size), value), affine)
}

#[test]
fn keys_become_channels_in_their_order() {
    let chain = chain(
        &[
            ("LoadImaged", json!({"keys": ["t2", "t1", "label"]})),
            (
                "ScaleIntensityRanged",
                json!({"keys": "t1", "a_min": 0, "a_max": 2, "b_min": 0, "b_max": 1}),
            ),
            ("ConcatItemsd", json!({"keys": ["t1", "t2"], "name": "image", "dim": 0})),
        ],
        &["t2", "t1"],
    )
    .unwrap();
    let out = chain.run(vec![image(5.0, 3, 1.0), image(1.0, 3, 1.0)], |_| Ok(())).unwrap();
    assert_eq!(out.data.dim(), (2, 3, 3, 3));
    assert_eq!((out.data[(0, 0, 0, 0)], out.data[(1, 0, 0, 0)]), (0.5, 5.0));
}

#[test]
fn differing_grids_are_refused_unless_the_bundle_resamples() {
    let concat = ("ConcatItemsd", json!({"keys": ["a", "b"], "name": "image"}));
    let plain = chain(std::slice::from_ref(&concat), &["a", "b"]).unwrap();
    for other in [image(1.0, 4, 1.0), image(1.0, 8, 1.1)] {
        let error = plain.run(vec![image(1.0, 8, 1.0), other], |_| Ok(())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidImage, "{error}");
        assert!(error.message().contains("b does not lie on the grid of a"), "{error}");
    }
    let matching = ("ResampleToMatchd", json!({"keys": "b", "key_dst": "a"}));
    let matched = chain(&[matching, concat], &["a", "b"]).unwrap();
    let out = matched.run(vec![image(1.0, 8, 1.0), image(3.0, 4, 2.0)], |_| Ok(())).unwrap();
    assert_eq!(out.data.dim(), (2, 8, 8, 8));
    assert!(out.data.index_axis(Axis(0), 1).iter().all(|v| (v - 3.0).abs() < 1e-6));
}

#[test]
fn values_by_key_go_to_their_keys() {
    let component = Component {
        target: "Spacingd".to_owned(),
        args: json!({"mode": ["bilinear", "nearest"], "pixdim": [1, 1, 1]})
            .as_object()
            .unwrap()
            .clone(),
        path: String::new(),
    };
    assert_eq!(for_key(&component, 1, 2).args["mode"], "nearest");
    assert_eq!(for_key(&component, 1, 2).args["pixdim"], json!([1, 1, 1]));
}

#[test]
fn values_by_key_count_keys_that_are_absent() {
    // The training label comes first, and its mode differs from the image's.
    let spacing = json!({
        "keys": ["label", "image"], "mode": ["nearest", "bilinear"], "pixdim": [1, 1, 1]
    });
    let chain = chain(&[("Spacingd", spacing)], &["image"]).unwrap();
    let Step::Each(each) = &chain.steps[0] else { panic!("{chain:?}") };
    assert!(format!("{:?}", each[0].1).contains("Linear"), "{each:?}");
}

#[test]
fn what_the_network_gets_must_be_clear() {
    assert!(chain(&[], &["a", "b"]).is_err());
    assert_eq!(chain(&[], &["a", "image"]).unwrap().result, "image");
    let unknown = ("Orientationd", json!({"keys": "other", "axcodes": "RAS"}));
    assert!(chain(&[unknown], &["a"]).is_err());
}
