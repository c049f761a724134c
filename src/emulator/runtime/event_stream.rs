//! Frames a model's response as an AWS event stream (`application/vnd.amazon.eventstream`).

use aws_smithy_eventstream::frame::write_message_to;
use aws_smithy_types::event_stream::{Header, HeaderValue, Message};
use bytes::{Bytes, BytesMut};
use serde_json::json;

use crate::error::{Error, Result};

/// The media type of the framing.
pub const MEDIA_TYPE: &str = "application/vnd.amazon.eventstream";

/// Maximum size of a part in bytes. Parts may end anywhere, independent of the model's writes.
const LARGEST: usize = 64 << 10;

/// Frames response bytes as `PayloadPart` events.
///
/// # Errors
/// [`ErrorKind::Internal`](crate::error::ErrorKind::Internal) if they cannot be framed.
pub fn payload(bytes: &Bytes) -> Result<Bytes> {
    let mut framed = BytesMut::with_capacity(bytes.len() + 256);
    for start in (0..bytes.len()).step_by(LARGEST) {
        let part = bytes.slice(start..bytes.len().min(start + LARGEST));
        let headers = [
            (":event-type", "PayloadPart"),
            (":content-type", "application/octet-stream"),
            (":message-type", "event"),
        ];
        write(headers, part, &mut framed)?;
    }
    Ok(framed.freeze())
}

/// Frames the exception `ModelStreamError`, which ends the stream.
///
/// # Errors
/// [`ErrorKind::Internal`](crate::error::ErrorKind::Internal) if it cannot be framed.
pub fn model_stream_error(code: &str, message: &str) -> Result<Bytes> {
    let mut framed = BytesMut::new();
    let headers = [
        (":exception-type", "ModelStreamError"),
        (":content-type", "application/json"),
        (":message-type", "exception"),
    ];
    let body = json!({"Message": message, "ErrorCode": code}).to_string();
    write(headers, body.into(), &mut framed)?;
    Ok(framed.freeze())
}

fn write(headers: [(&'static str, &'static str); 3], body: Bytes, to: &mut BytesMut) -> Result<()> {
    let of = |(name, value): (&'static str, &'static str)| {
        Header::new(name, HeaderValue::String(value.into()))
    };
    let message = Message::new_from_parts(headers.map(of).into(), body);
    write_message_to(&message, to)
        .map_err(|e| Error::internal("an event cannot be framed").caused_by(e))
}

#[cfg(test)]
mod tests {
    use aws_smithy_eventstream::frame::read_message_from;

    use super::*;

    fn header<'m>(message: &'m Message, name: &str) -> &'m str {
        let header = message.headers().iter().find(|header| header.name().as_str() == name);
        header.unwrap().value().as_string().unwrap().as_str()
    }

    #[test]
    fn an_answer_comes_in_bounded_parts() {
        let answer: Vec<u8> = (0..200_000_u32).map(|n| n as u8).collect();
        let mut framed = payload(&answer.clone().into()).unwrap();
        let mut back = Vec::new();
        let mut parts = 0;
        while !framed.is_empty() {
            let message = read_message_from(&mut framed).unwrap();
            assert_eq!(header(&message, ":message-type"), "event");
            assert_eq!(header(&message, ":event-type"), "PayloadPart");
            assert!(message.payload().len() <= LARGEST);
            back.extend_from_slice(message.payload());
            parts += 1;
        }
        assert_eq!((back, parts), (answer, 4));
        assert!(payload(&Bytes::new()).unwrap().is_empty());
    }

    #[test]
    fn a_broken_stream_says_so() {
        let mut framed = model_stream_error("StreamBroken", "gone").unwrap();
        let message = read_message_from(&mut framed).unwrap();
        assert_eq!(header(&message, ":message-type"), "exception");
        assert_eq!(header(&message, ":exception-type"), "ModelStreamError");
        let body: serde_json::Value = serde_json::from_slice(message.payload()).unwrap();
        assert_eq!(body, json!({"Message": "gone", "ErrorCode": "StreamBroken"}));
    }
}
