//! `ping`: checks whether the server on this machine is ready, for a container's health check. The
//! image contains neither a shell nor `curl` to do it with.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use clap::Args;

use crate::error::{Error, ErrorKind, Result};

/// Maximum number of bytes read of the status line.
const STATUS_LINE: u64 = 256;

/// Flags of `ping`.
#[derive(Debug, Clone, Args)]
pub struct PingArgs {
    /// Port the server listens on
    #[arg(long, env = "SAGEMAKER_BIND_TO_PORT", default_value_t = 8080, value_name = "PORT")]
    pub port: u16,
    /// Address the server listens on
    #[arg(long, env = "BIND_HOST", default_value_t = IpAddr::V4(Ipv4Addr::UNSPECIFIED),
          value_name = "ADDRESS")]
    pub host: IpAddr,
    /// Time to wait for its answer, as SageMaker waits
    #[arg(long, env = "PING_TIMEOUT", default_value = "2", value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(1..=60))]
    pub timeout: u64,
}

/// Requests `GET /ping`.
///
/// # Errors
/// [`ErrorKind::Io`] if there is no response in time, or its status is not 200.
pub(super) fn run(args: &PingArgs) -> Result<()> {
    let address = SocketAddr::new(reachable(args.host), args.port);
    let status = ask(address, Duration::from_secs(args.timeout)).map_err(|e| {
        Error::new(ErrorKind::Io, format!("no answer from {address}: {e}")).caused_by(e)
    })?;
    // "HTTP/1.1 200 OK", RFC 9112 section 4.
    let mut words = status.split_ascii_whitespace();
    let http = words.next().is_some_and(|version| version.starts_with("HTTP/1."));
    match words.next() {
        Some("200") if http => Ok(()),
        _ => Err(Error::new(ErrorKind::Io, format!("{address} answered: {}", status.trim_end()))),
    }
}

/// Returns the address that reaches a server listening on `host` from its own machine.
fn reachable(host: IpAddr) -> IpAddr {
    match host {
        IpAddr::V4(address) if address.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(address) if address.is_unspecified() => std::net::Ipv6Addr::LOCALHOST.into(),
        other => other,
    }
}

/// Returns the status line of the response.
fn ask(address: SocketAddr, timeout: Duration) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    write!(stream, "GET /ping HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut line = String::new();
    BufReader::new(stream.take(STATUS_LINE)).read_line(&mut line)?;
    Ok(line)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        ping: PingArgs,
    }

    /// Returns the result of `ping` for a server that responds with `answer`.
    fn ping(answer: &'static str) -> Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = String::new();
            let mut lines = BufReader::new(stream.try_clone().unwrap());
            while lines.read_line(&mut request).unwrap() > 2 {}
            stream.write_all(answer.as_bytes()).unwrap();
            request
        });
        let args = Command::parse_from(["test", "--port", &port, "--host", "127.0.0.1"]);
        let result = run(&args.ping);
        assert!(server.join().unwrap().starts_with("GET /ping HTTP/1.1\r\n"));
        result
    }

    #[test]
    fn only_200_is_health() {
        ping("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
        let error = ping("HTTP/1.1 503 Service Unavailable\r\n\r\n").unwrap_err();
        assert!(error.message().ends_with("503 Service Unavailable"), "{error}");
        for other in ["", "SSH-2.0 200\r\n", "HTTP/1.1 2000\r\n"] {
            assert!(ping(other).is_err(), "{other}");
        }
    }

    #[test]
    fn nobody_there_is_an_error() {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let args = Command::parse_from(["test", "--port", &port.to_string()]);
        let error = run(&args.ping).unwrap_err();
        assert!(error.message().contains(&format!("127.0.0.1:{port}")), "{error}");
    }
}
