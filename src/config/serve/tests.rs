//! Tests of the server's settings.

use clap::Parser;

use super::*;
use crate::config::{EndpointUrl, ExecutionProvider};

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    serve: ServeArgs,
}

fn parse(flags: &[&str]) -> Result<ServeSettings, String> {
    let words = std::iter::once("test").chain(flags.iter().copied());
    let command = Command::try_parse_from(words).map_err(|e| e.to_string())?;
    command.serve.settings().map_err(|e| e.to_string())
}

#[test]
fn defaults_are_sagemakers() {
    let settings = parse(&[]).unwrap();
    assert_eq!(settings.listen, "0.0.0.0:8080".parse().unwrap());
    assert_eq!(settings.models, ModelSettings::Folder(PathBuf::from("/opt/ml/model")));
    assert_eq!(settings.http.request_timeout, Some(Duration::from_secs(60)));
    assert_eq!(settings.http.stream_timeout, Some(Duration::from_secs(475)));
    assert_eq!(settings.drain_timeout, Duration::from_secs(25));
    let batch = parse(&["--batch"]).unwrap();
    assert_eq!(batch.http.request_timeout, Some(Duration::from_secs(3600)));
    assert_eq!((usual_body(None), usual_body(Some(1 << 30))), (1 << 30, 1 << 28));
    assert_eq!(settings.compute.execution_provider, ExecutionProvider::Auto);
    assert!(settings.compute.threads >= 1);
    assert!(!settings.aws.ahi.allow_non_primary && !settings.aws.s3.path_style);
}

#[test]
fn streams_have_at_least_the_time_of_other_requests() {
    let time = |flags: &[&str]| parse(flags).unwrap().http.stream_timeout;
    let seconds = |n| Some(Duration::from_secs(n));
    assert_eq!(time(&["--request-timeout=900"]), seconds(900));
    assert_eq!(time(&["--request-timeout=0"]), None);
    assert_eq!(time(&["--stream-timeout=0"]), None);
    assert_eq!(time(&["--request-timeout=1", "--stream-timeout=30"]), seconds(30));
    assert_eq!(time(&["--batch", "--stream-timeout=480"]), seconds(480));
    assert_eq!(time(&["--batch"]), seconds(3600));
}

#[test]
fn values_are_understood() {
    let settings = parse(&[
        "--request-timeout=0",
        "--ahi-allow-non-primary",
        "--s3-path-style=false",
        "--ahi-endpoint-url=http://127.0.0.1:9000",
        "--output-uri=s3://bucket/a",
        "--max-inline=0",
        "--multi-model",
        "--memory-budget-bytes=5000",
        "--model-roots=/opt/ml/models:/srv/a,/srv/b:",
    ])
    .unwrap();
    let roots = ["/opt/ml/models", "/srv/a", "/srv/b"].map(PathBuf::from).to_vec();
    assert_eq!(settings.models, ModelSettings::MultiModel { budget: Some(5000), roots });
    let ModelSettings::MultiModel { roots, .. } = parse(&["--multi-model"]).unwrap().models else {
        panic!("a folder")
    };
    assert_eq!(roots, [PathBuf::from("/opt/ml")]);
    assert_eq!(settings.http.request_timeout, None);
    assert!(settings.aws.ahi.allow_non_primary && !settings.aws.s3.path_style);
    let endpoint = settings.aws.ahi.endpoint.as_ref().map(EndpointUrl::as_str);
    assert_eq!(endpoint, Some("http://127.0.0.1:9000"));
}

#[test]
fn wrong_and_contradictory_values_are_refused_by_name() {
    for (flags, named) in [
        (&["--max-concurrent=0"][..], "--max-concurrent"),
        (&["--memory-budget-bytes=1000"], "--multi-model"),
        (&["--model-roots=/opt/ml"], "--multi-model"),
        (&["--multi-model", "--model-roots=models"], "--model-roots"),
        (&["--multi-model", "--model-roots=:"], "--model-roots"),
        (&["--port=70000"], "--port"),
        (&["--no-such-flag"], "--no-such-flag"),
        (&["--ahi-frames-in-flight=0"], "--ahi-frames-in-flight"),
        (&["--execution-providers=tpu"], "--execution-providers"),
        (&["--output-uri=/tmp"], "--output-uri"),
        (&["--output-uri=s3://"], "--output-uri"),
        (&["--max-inline=0"], "--output-uri"),
        (&["--max-inputs=0"], "--max-inputs"),
        (&["--stream-timeout=30"], "--stream-timeout"),
        (&["--request-timeout=0", "--stream-timeout=30"], "--stream-timeout"),
        (&["--max-connections=0"], "--max-connections"),
        (&["--header-timeout=0"], "--header-timeout"),
        (&["--transfer-timeout=0"], "--transfer-timeout"),
        (&["--ahi-endpoint-url=localhost"], "--ahi-endpoint-url"),
        (&["--region=US east"], "--region"),
    ] {
        let error = parse(flags).unwrap_err();
        assert!(error.contains(named), "{flags:?}: {error}");
    }
}

#[test]
fn what_runs_at_once_fits_into_cores_and_memory() {
    const GIB: u64 = 1 << 30;
    for (cores, memory, expected) in [
        (1, None, 2),
        (2, Some(16 * GIB), 2),
        (16, Some(64 * GIB), 8),
        (16, Some(8 * GIB), 4),
        (2, Some(GIB), 1),
        (128, None, 16),
    ] {
        assert_eq!(usual_concurrency(cores, memory), expected, "{cores} {memory:?}");
    }
    assert_eq!(usual_budget(16 * GIB, 2), 14 * GIB);
    assert_eq!(usual_budget(4 * GIB, 16), 2 * GIB);
}

#[test]
fn every_flag_has_an_environment_twin() {
    use clap::CommandFactory;
    for argument in Command::command().get_arguments() {
        assert!(
            argument.get_env().is_some() || argument.get_id() == "help",
            "{}",
            argument.get_id()
        );
    }
}
