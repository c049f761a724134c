//! Loads the libraries of the chosen provider before the first model asks for them.
//!
//! OpenVINO's libraries are loaded when a first session is created, which takes as long as compiling a small network.
//! A server that waits for models has the time.

use super::protobuf::{put_bytes, put_varint};
use super::provider::{self, Machine, Provider, ProviderChoice, choose};
use super::runtime::runtime;
use crate::bundle::CpuPrecision;
use crate::error::{Error, ErrorKind, Result};

/// Creates a session of a network of one node and drops it again, if networks will run in OpenVINO. Loading a model
/// reports what is wrong, so a failure may be ignored here.
///
/// # Errors
/// Propagates the errors of loading ONNX Runtime and of creating the session.
pub fn prepare(choice: ProviderChoice) -> Result<()> {
    let runtime = runtime(choice)?;
    let chosen = choose(choice, CpuPrecision::F32, &Machine::this(), &runtime.library)?;
    if chosen.provider != Provider::OpenVino {
        return Ok(());
    }
    let providers =
        provider::providers(Provider::OpenVino, 0, 1, CpuPrecision::F32, &Default::default());
    let session = ort::session::Session::builder(&runtime.environment)
        .and_then(|builder| Ok(builder.with_execution_providers(providers)?))
        .and_then(|mut builder| builder.commit_from_memory(&one_node()));
    session.map(drop).map_err(|e| {
        Error::new(ErrorKind::Configuration, "OpenVINO cannot run a network").caused_by(e)
    })
}

/// Returns a model of onnx.proto, `y = Relu(x)` with x and y of four f32.
fn one_node() -> Vec<u8> {
    let bytes = |number, content: &[u8]| {
        let mut out = Vec::new();
        put_bytes(&mut out, number, content);
        out
    };
    let number = |field: u64, value: u64| {
        let mut out = Vec::new();
        put_varint(&mut out, field << 3);
        put_varint(&mut out, value);
        out
    };
    let value = |name: &str| {
        let shape = bytes(1, &number(1, 4));
        let tensor = [number(1, 1), bytes(2, &shape)].concat();
        [bytes(1, name.as_bytes()), bytes(2, &bytes(1, &tensor))].concat()
    };
    let node = [bytes(1, b"x"), bytes(2, b"y"), bytes(4, b"Relu")].concat();
    let graph =
        [bytes(1, &node), bytes(2, b"g"), bytes(11, &value("x")), bytes(12, &value("y"))].concat();
    // IR version 8, operator set 13.
    [number(1, 8), bytes(7, &graph), bytes(8, &number(2, 13))].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_network_of_one_node_is_a_network() {
        let runtime = match runtime(ProviderChoice::Cpu) {
            Ok(runtime) => runtime,
            Err(e) => return eprintln!("skipped: {e}"),
        };
        let mut builder = ort::session::Session::builder(&runtime.environment).unwrap();
        let session = builder.commit_from_memory(&one_node()).unwrap();
        assert_eq!(session.inputs()[0].name(), "x");
    }

    #[test]
    fn preparing_ends_well_whatever_the_machine_has() {
        match prepare(ProviderChoice::Auto) {
            Ok(()) => {}
            Err(e) => assert_eq!(e.kind(), ErrorKind::Configuration, "{e}"),
        }
    }
}
