//! Tests of the whole expression language.

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;

/// A scope with a few items and imports.
struct Fixed {
    left: usize,
}

impl Scope for Fixed {
    fn reference(&mut self, reference: &Reference, _: usize) -> Result<Value, Fault> {
        Ok(match reference.to_string().as_str() {
            "@root" => Value::Str("./bundle".into()),
            "@n" => Value::Int(3),
            "@low" => Value::Float(-0.5),
            "@net#channels" => Value::List(vec![Value::Int(16), Value::Int(32)]),
            other => return Err(Fault::Here(format!("no {other}"))),
        })
    }

    fn module(&self, name: &str) -> Option<String> {
        match name {
            "np" => Some("numpy".to_owned()),
            "torch" | "copy" | "monai" => Some(name.to_owned()),
            _ => None,
        }
    }

    fn spend(&mut self, units: usize) -> Result<(), Fault> {
        self.left = self.left.checked_sub(units).ok_or_else(|| Fault::Here("too much".into()))?;
        Ok(())
    }
}

fn plain(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Bool(b) => json!(b),
        Value::Int(i) => json!(i),
        Value::Float(x) => json!(x),
        Value::Str(text) => json!(text),
        Value::List(items) => items.iter().map(plain).collect(),
        Value::Tuple(items) => json!({"tuple": items.iter().map(plain).collect::<Vec<_>>()}),
        Value::Dict(entries) => {
            Json::Object(entries.iter().map(|(k, v)| (k.clone(), plain(v))).collect())
        }
        Value::Symbol(name) => json!({ "symbol": name }),
        Value::Lambda { params, body } => json!({ "params": params, "body": body }),
        Value::Component(id) => json!({ "component": id.to_string() }),
    }
}

fn run(source: &str) -> Result<Json, Fault> {
    let expr = parse(source).map_err(Fault::Here)?;
    evaluate(&expr, &mut Fixed { left: 1_000_000 }).map(|value| plain(&value))
}

#[track_caller]
fn gives(source: &str, expected: Json) {
    assert_eq!(run(source), Ok(expected), "{source}");
}

#[track_caller]
fn refused(source: &str, part: &str) {
    match run(source) {
        Err(Fault::Here(message)) => assert!(message.contains(part), "{source}: {message}"),
        other => panic!("{source}: {other:?}"),
    }
}

#[test]
fn literals_and_containers() {
    gives("[1, -2.5, 'a' \"b\", None, True,]", json!([1, -2.5, "ab", null, true]));
    gives("(1, 2)", json!({"tuple": [1, 2]}));
    gives("1, 2", json!({"tuple": [1, 2]}));
    gives("(1)", json!(1));
    gives("{'a': 1, **{'b': 2, 'a': 3}}", json!({"a": 3, "b": 2}));
    gives("[*range(2), *(7,)]", json!([0, 1, 7]));
}

#[test]
fn arithmetic_is_pythons() {
    gives("2 + 3 * 4 ** 2 / 8", json!(8.0));
    gives("-2 ** 2", json!(-4));
    gives("2 ** -1 ** 2", json!(0.5));
    gives("2 ** 3 ** 2", json!(512));
    gives("-7 // 2", json!(-4));
    gives("-7 % 3", json!(2));
    gives("7.5 % -2", json!(-0.5));
    gives("7 / 2", json!(3.5));
    gives("'a' * 3 + 'b'", json!("aaab"));
    gives("[0] * 2 + [1]", json!([0, 0, 1]));
    gives("True + 1", json!(2));
    gives("6 & 3 | 8", json!(10));
    refused("1 / 0", "divides by zero");
    refused("9223372036854775807 + 1", "more than 64 bits");
    refused("10.0 ** 400", "not finite");
    refused("'a' + 1", "applies `+` to a str and a int");
}

#[test]
fn comparisons_and_conditions() {
    gives("1 < 2 <= 2 != 3", json!(true));
    gives("2 in [1, 2] and 'b' not in 'abc'", json!(false));
    gives("not 1 == 2", json!(true));
    gives("@n is not None", json!(true));
    gives("0 or 'x'", json!("x"));
    gives("[1.5] if @n > 3 else [3.0]", json!([3.0]));
    gives("1 if 0 else 2 if 0 else 3", json!(3));
    gives("1 if True else undefined_name", json!(1));
    refused("1 < 'a'", "orders a int and a str");
    refused("1 if torch.flag else 2", "`torch.flag` is true");
}

#[test]
fn references_indices_and_slices() {
    gives("@root + '/eval'", json!("./bundle/eval"));
    gives("@net#channels[-1] + @n", json!(35));
    gives("@net::channels[:1]", json!([16]));
    gives("'abcdef'[1:-1:2]", json!("bd"));
    gives("{'a': {'b': 4}}['a']['b']", json!(4));
    refused("[1][2]", "does not exist");
    refused("@missing", "no @missing");
}

#[test]
fn known_calls() {
    gives("list(range(33, 36)) + list(range(2)) + [9]", json!([33, 34, 35, 0, 1, 9]));
    gives("list(range(5, 0, -2))", json!([5, 3, 1]));
    gives("[max(1, 2.5), min([4, 3]), sum([1, 2]), len('ab'), abs(-3)]", json!([2.5, 3, 3, 2, 3]));
    gives("str(1.0) + str(None)", json!("1.0None"));
    gives("[int('7'), int(2.9), float(1), bool([])]", json!([7, 2, 1.0, false]));
    gives("sorted([3, 1, 2])", json!([1, 2, 3]));
    gives("dict(a=1, b=[2])", json!({"a": 1, "b": [2]}));
    gives("copy.deepcopy(@n)", json!(3));
    gives("tuple([1])", json!({"tuple": [1]}));
    refused("open('/etc/passwd')", "calls `open`, which is not evaluated here");
    refused("__import__('os').system('ls')", "calls `__import__('os').system`");
    refused("json.loads('1')", "calls `json.loads`");
    refused("@root.upper()", "upper");
    refused("range(10 ** 12)", "range of more than");
}

#[test]
fn comprehensions() {
    gives("[i + 1 for i in range(4) if i % 2]", json!([2, 4]));
    gives("[a * b for a in [1, 2] for b in [3, 4]]", json!([3, 4, 6, 8]));
    gives("{k: v for k, v in [('a', 1)]}", json!({"a": 1}));
    gives("sum(i for i in [1, 2])", json!(3));
    refused("[i for i in range(1000) for j in range(1000) for k in range(1000)]", "too much");
    refused("{1, 2}", "makes a set");
}

#[test]
fn names_of_libraries_are_symbols_with_full_names() {
    gives("torch.float32", json!({"symbol": "torch.float32"}));
    gives("np.float32", json!({"symbol": "numpy.float32"}));
    gives("float", json!({"symbol": "float"}));
    gives(
        "torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        json!({"symbol": "torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')"}),
    );
    refused("os.sep", "uses `os`");
    refused("torch.device('cpu').type", "attribute");
}

#[test]
fn a_lambda_keeps_its_body_in_one_form() {
    let body = |source: &str| run(source).unwrap()["body"].as_str().unwrap().to_owned();
    assert_eq!(body("lambda x: x>0"), "x > 0");
    assert_eq!(body("lambda x:(x)+ (1*2)"), "x + 1 * 2");
    assert_eq!(body("lambda x: (x + 1) * 2"), "(x + 1) * 2");
    assert_eq!(body("lambda x: np.where(x[[2]]>@low,4,0)"), "numpy.where(x[[2]] > (-0.5), 4, 0)");
    assert_eq!(body("lambda np: np + @n"), "np + 3");
    assert_eq!(body("lambda: None"), "None");
    assert_eq!(body("lambda x: x[..., 1]".replace("...", ":").as_str()), "x[:, 1]");
    assert_eq!(body("lambda x: (not x) in (1,)"), "(not x) in (1,)");
    assert_eq!(body("lambda x: (-x) ** -2"), "(-x) ** -2");
    assert_eq!(body("lambda x: [i for i in x if i>0]"), "[i for i in x if i > 0]");
    gives(
        "lambda x, y: torch.nan_to_num(x, nan=255)",
        json!({"params": ["x", "y"], "body": "torch.nan_to_num(x, nan=255)"}),
    );
}

#[test]
fn what_a_lambda_prints_reads_back_the_same() {
    for source in [
        "torch.where(x[[2]] > 0, 4, torch.where(x[[0]] > 0, 1, torch.where(x[[1]] > 0, 2, 0)))",
        "[p({**xx['pred'], 'image': xx['image']}) for xx in x]",
        "a if b else (lambda: c)",
        "(a if b else c) if d else e",
        "x[1:, ::2, -1] // (2 - 3) - (4 - y)",
        "not (a and b) or c < d < e",
        "~x & 1 << 2 ^ (3 | 4)",
    ] {
        let printed = |text: &str| {
            let expr = parse(text).unwrap();
            print::print(&expr, &[], 0, &mut Fixed { left: 10_000 }).unwrap()
        };
        let once = printed(source);
        assert_eq!(parse(&once).unwrap(), parse(source).unwrap(), "{once}");
        assert_eq!(printed(&once), once);
    }
}

#[test]
fn syntax_errors_say_what_does_not_fit() {
    refused("1 +", "ends where a value belongs");
    refused("[1, 2", "ends where");
    refused("1 2", "does not continue with `2`");
    refused("f(x", "ends where");
    refused("lambda x=1: x", "`=`");
    refused("a := 1", "`:=`");
    refused("[1, 2:3]", "`:`");
    refused("import os; os", "`import`");
    refused("", "ends where a value belongs");
}

#[test]
fn size_and_depth_are_bounded() {
    refused(&"(".repeat(10_000), "nested more than");
    refused(&"-".repeat(10_000), "nested more than");
    refused(&"not ".repeat(3_000), "nested more than");
    refused(&["1"; 5_000].join("+"), "operators");
    refused(&format!("a{}", ".b".repeat(5_000)), "operators");
    refused(&format!("a{}", "[0]".repeat(5_000)), "operators");
    refused(&" ".repeat(20_000), "longer than");
    refused("'a' * 99999999999", "");
    refused("['a' * 90000 for i in range(90000)]", "too much");
    refused("[[0] * 1000] * 100000", "too much");
}

#[test]
fn imports() {
    let import = |text| parse_import(text).map(|(alias, full)| format!("{alias}={full}"));
    assert_eq!(import("import numpy as np").as_deref(), Some("np=numpy"));
    assert_eq!(import("import os.path").as_deref(), Some("os=os"));
    assert_eq!(import("from a.b import c as d").as_deref(), Some("d=a.b.c"));
    assert_eq!(import("from a.b import c").as_deref(), Some("c=a.b.c"));
    assert_eq!(import("important"), None);
    assert_eq!(import("import os; os.system('x')"), None);
}

proptest! {
    #[test]
    fn any_text_is_read_without_a_panic(source in "\\PC{0,200}") {
        let _ = run(&source);
    }

    #[test]
    fn any_tokens_are_read_without_a_panic(words in proptest::collection::vec(
        prop::sample::select(vec![
            "1", "2.5", "'s'", "@n", "@net#channels", "x", "np", "lambda", "if", "else", "for",
            "in", "not", "is", "and", "or", "(", ")", "[", "]", "{", "}", ",", ":", ".", "**", "*",
            "-", "+", "//", "%", "<", "==", "=", "list", "range", "None", "\\", "'", "é", "0x",
        ]),
        0..40,
    )) {
        let _ = run(&words.join(" "));
        let _ = run(&words.concat());
    }

    #[test]
    fn integer_division_agrees_with_its_definition(a in any::<i32>(), b in any::<i32>()) {
        prop_assume!(b != 0);
        let (a, b) = (i64::from(a), i64::from(b));
        let floored = (a as f64 / b as f64).floor() as i64;
        prop_assert_eq!(run(&format!("{a} // {b}")).unwrap(), json!(floored));
        prop_assert_eq!(run(&format!("{a} % {b}")).unwrap(), json!(a - floored * b));
    }
}
