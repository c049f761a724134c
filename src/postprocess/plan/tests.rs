use serde_json::{Value, json};

use super::*;

fn components(list: &[(&str, Value)]) -> Vec<Component> {
    let component = |(i, (target, args)): (usize, &(&str, Value))| Component {
        target: (*target).to_owned(),
        args: args.as_object().unwrap().clone(),
        path: format!("postprocessing#transforms#{i}"),
    };
    list.iter().enumerate().map(component).collect()
}

#[test]
fn operations_stand_on_the_side_of_the_inversion_they_are_written_on() {
    let largest = ("KeepLargestConnectedComponentd", json!({"applied_labels": [1, 2]}));
    let plan = PostPlan::new(&components(&[
        ("AsDiscreted", json!({"keys": "pred", "argmax": true})),
        largest.clone(),
        ("Invertd", json!({"keys": "pred", "nearest_interp": false})),
        ("FillHolesd", json!({"keys": "pred"})),
        ("RemoveSmallObjectsd", json!({"min_size": 10})),
    ]))
    .unwrap();
    assert_eq!(plan.before, Some(Discretise::Argmax));
    let [LabelOperation::KeepLargest { applied_labels, independent, .. }] =
        &plan.operations_before[..]
    else {
        panic!("{plan:?}");
    };
    assert_eq!((applied_labels.as_deref(), *independent), (Some(&[1, 2][..]), true));
    assert!(matches!(
        plan.operations_after[..],
        [LabelOperation::FillHoles { .. }, LabelOperation::RemoveSmall { .. }]
    ));
    assert!(PostPlan::describe(&components(&[largest])[0]).is_ok());
}

#[test]
fn operations_need_labels_and_arguments_that_are_known() {
    let argmax = ("AsDiscreted", json!({"argmax": true}));
    for list in [
        vec![("FillHolesd", json!({})), argmax.clone()],
        vec![argmax.clone(), ("RemoveSmallObjectsd", json!({"min_size": -1}))],
        vec![argmax.clone(), ("KeepLargestConnectedComponentd", json!({"applied_labels": [300]}))],
        vec![argmax.clone(), ("KeepLargestConnectedComponentd", json!({"connectivity": 4}))],
        vec![argmax, ("LabelFilterd", json!({}))],
    ] {
        let error = PostPlan::new(&components(&list)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidModel, "{error}");
        assert!(error.message().contains("postprocessing#transforms#"), "{error}");
    }
}

fn plan(list: &[(&str, Value)]) -> PostPlan {
    PostPlan::new(&components(list)).unwrap()
}

#[test]
fn one_hot_channels_are_kept_where_an_operation_tells_them_from_labels() {
    let onehot = ("AsDiscreted", json!({"argmax": true, "to_onehot": 3}));
    let largest = ("KeepLargestConnectedComponentd", json!({}));
    let fill = ("FillHolesd", json!({}));
    let argmax = ("AsDiscreted", json!({"argmax": true}));
    let invert = ("Invertd", json!({"nearest_interp": false}));
    let is_onehot = |o: &LabelOperation| matches!(o, LabelOperation::OneHot { classes: 3 });
    // These stay labels.
    for list in [
        vec![invert.clone(), onehot.clone()],
        vec![invert.clone(), onehot.clone(), largest.clone(), argmax.clone()],
        vec![onehot.clone(), largest.clone()],
    ] {
        let plan = plan(&list);
        let all: Vec<_> = plan.operations_before.iter().chain(&plan.operations_after).collect();
        assert!(!all.iter().any(|o| is_onehot(o) || **o == LabelOperation::Argmax), "{plan:?}");
    }
    let after = plan(&[invert.clone(), onehot.clone(), largest.clone(), fill.clone()]);
    assert!(is_onehot(&after.operations_after[0]), "{after:?}");
    let interpolated = plan(&[onehot.clone(), invert, argmax.clone()]);
    assert!(is_onehot(&interpolated.operations_before[0]));
    assert_eq!(interpolated.after, Some(Discretise::Argmax));
    assert!(interpolated.interpolates_labels() && interpolated.warnings().is_empty());
    // The number of classes must match the network's.
    assert!(after.form(3).is_ok() && after.form(4).is_err());
}

#[test]
fn what_interpolated_labels_become_is_said() {
    let argmax = ("AsDiscreted", json!({"argmax": true}));
    let invert = ("Invertd", json!({"nearest_interp": false}));
    let prostate = plan(&[argmax.clone(), invert.clone()]);
    assert_eq!((prostate.after, prostate.nearest()), (None, false));
    let [warning] = &prostate.warnings()[..] else { panic!("no warning") };
    assert!(warning.contains("Invertd has nearest_interp false"), "{warning}");
    let nearest = plan(&[argmax.clone(), ("Invertd", json!({}))]);
    assert!(nearest.nearest() && nearest.warnings().is_empty());
    let half = ("AsDiscreted", json!({"threshold": 0.5}));
    let binary = plan(&[argmax, invert, half]);
    assert_eq!(binary.after, Some(Discretise::Threshold(0.5)));
    assert!(binary.form(2).is_ok());
    assert!(binary.form(3).unwrap_err().message().contains("one mask of 2 classes"));
}

#[test]
fn activations_stand_on_either_side_of_the_inversion() {
    let argmax = ("AsDiscreted", json!({"argmax": true}));
    let softmax = ("Activationsd", json!({"softmax": true}));
    let sigmoid = ("Activationsd", json!({"sigmoid": true}));
    let invert = ("Invertd", json!({"nearest_interp": false}));
    let both = plan(&[sigmoid, invert.clone(), softmax.clone(), argmax.clone()]);
    assert_eq!(
        (both.activation, both.activation_after),
        (Activation::Sigmoid, Activation::Softmax)
    );
    let twice = [softmax.clone(), softmax.clone(), argmax.clone()];
    let late = [argmax.clone(), softmax];
    let round = [invert, ("AsDiscreted", json!({"rounding": "torchrounding"}))];
    let ensemble = [("MeanEnsembled", json!({"keys": ["a", "b"], "output_key": "pred"})), argmax];
    for (list, why) in [
        (&twice[..], "one activation"),
        (&late[..], "before AsDiscreted"),
        (&round[..], "put Activationsd before it"),
        (&ensemble[..], "a bundle here has one"),
    ] {
        let error = PostPlan::new(&components(list)).unwrap_err();
        assert!(error.message().contains(why), "{error}");
        assert!(
            error.details()["path"].as_str().unwrap().starts_with("postprocessing#"),
            "{error}"
        );
    }
}

#[test]
fn values_by_key_are_those_of_the_result() {
    let discrete =
        json!({"keys": ["label", "pred"], "argmax": [false, true], "to_onehot": [3, null]});
    let plan = plan(&[("AsDiscreted", discrete)]);
    assert_eq!((plan.before, plan.operations_before.len()), (Some(Discretise::Argmax), 0));
}

#[test]
fn a_second_discretisation_needs_something_to_discretise() {
    let argmax = ("AsDiscreted", json!({"argmax": true}));
    let half = ("AsDiscreted", json!({"threshold": 0.5}));
    let masks = plan(&[half.clone(), argmax.clone()]);
    assert_eq!(masks.operations_before, [LabelOperation::Argmax]);
    assert_eq!(masks.form(3).unwrap(), ResultForm::Labels);
    assert!(masks.form(1).is_err(), "argmax of one channel is 0 everywhere");
    assert_eq!(plan(std::slice::from_ref(&half)).form(3).unwrap(), ResultForm::Masks);
    for list in [
        vec![argmax.clone(), argmax.clone()],
        vec![half.clone(), ("AsDiscreted", json!({"threshold": 1.5}))],
        vec![("AsDiscreted", json!({"to_onehot": 3}))],
        vec![("AsDiscreted", json!({"argmax": true, "to_onehot": 1}))],
        vec![("AsDiscreted", json!({"argmax": true, "to_onehot": true}))],
        vec![("AsDiscreted", json!({"argmax": true, "rounding": "up"}))],
    ] {
        let error = PostPlan::new(&components(&list)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidModel, "{list:?}");
    }
}
