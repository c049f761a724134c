//! The program itself: its messages and exit codes if it cannot serve.

use std::net::TcpListener;
use std::process::{Command, Output};

use serde_json::Value;

fn run(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ahi-inference"))
        .args(arguments)
        .env_clear()
        .envs(variables.iter().copied())
        .output()
        .unwrap()
}

/// Parses the last line of standard error, which is JSON unless it is a terminal.
fn last_line(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stderr);
    serde_json::from_str(text.lines().last().unwrap_or_default())
        .unwrap_or_else(|e| panic!("{e}: {text}"))
}

#[test]
fn wrong_settings_are_usage_errors_in_one_line_of_json() {
    for (arguments, variables, named) in [
        (&["serve", "--no-such-flag"][..], &[][..], "--no-such-flag"),
        (&["no-such-command"], &[], "no-such-command"),
        (&["serve"], &[("SAGEMAKER_BIND_TO_PORT", "http")], "--port"),
        (&["serve"], &[("AHI_ENDPONT_URL", "http://x")], "AHI_ENDPONT_URL"),
        (&["serve"], &[("AHI_ENDPOINT_URL", "x")], "--ahi-endpoint-url"),
        (&["serve", "--log-level", "a=b=c"], &[], "--log-level"),
        (&["serve", "--host", "192.0.2.1"], &[], "192.0.2.1"),
    ] {
        let output = run(arguments, variables);
        assert_eq!(output.status.code(), Some(2), "{arguments:?} {variables:?}");
        let line = last_line(&output);
        assert_eq!(line["code"], "configuration", "{line}");
        let message = line["message"].as_str().unwrap();
        assert!(message.contains(named), "{arguments:?} {variables:?}: {message}");
    }
}

#[test]
fn credentials_in_an_endpoint_are_not_repeated() {
    let output = run(&["serve"], &[("S3_ENDPOINT_URL", "https://user:hunter2@host")]);
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("--s3-endpoint-url") && !text.contains("hunter2"), "{text}");
}

#[test]
fn a_port_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let output = run(&["serve", "--host=127.0.0.1", "--port", &port], &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(last_line(&output)["message"].as_str().unwrap().contains(&port));
}

#[test]
fn a_folder_without_models_is_a_configuration_error() {
    let empty = tempfile::tempdir().unwrap();
    let model = empty.path().to_str().unwrap();
    let output = run(&["serve", "--host=127.0.0.1", "--port=0", "--model", model], &[]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(last_line(&output)["code"], "configuration");
}

#[test]
fn help_and_version_succeed() {
    for arguments in [&["--version"][..], &["serve", "--help"]] {
        let output = run(arguments, &[]);
        assert_eq!(output.status.code(), Some(0));
        assert!(!output.stdout.is_empty());
    }
}
