//! `multipart/related` as the DICOM web services use it (PS3.18 section 8.6.1.2, RFC 2387 in the
//! form of RFC 2046 section 5.1): splits bytes into parts and writes parts as bytes, independent of
//! HTTP.
//!
//! A message is untrusted input: its parts share its memory, their number and the length of their
//! headers are bounded, and a message that ends before its last boundary is an error, because its
//! last part may be half an instance.

use std::io::Write;

use bytes::Bytes;
use uuid::Uuid;

use super::media_type::MediaType;
use crate::error::{Error, ErrorKind, Result};

/// Maximum number of header bytes of one part.
const MOST_HEADER_BYTES: usize = 8 << 10;

/// Maximum number of characters of a boundary (RFC 2046 section 5.1.1).
const MOST_BOUNDARY_CHARACTERS: usize = 70;

/// A part of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The value of `Content-Type`, if the part has a valid one.
    pub content_type: Option<MediaType>,
    /// Its content, a slice of the message's memory.
    pub data: Bytes,
}

/// Returns the boundary that `Content-Type` states.
///
/// # Errors
/// [`ErrorKind::InvalidRequest`] if there is none, or it is not 1 to 70 of the characters allowed
/// in a boundary.
pub fn boundary(content_type: &MediaType) -> Result<&str> {
    let invalid = |problem: &str| Error::new(ErrorKind::InvalidRequest, problem);
    let boundary = content_type
        .parameter("boundary")
        .ok_or_else(|| invalid("Content-Type has no boundary; add the one between the parts"))?;
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(&b);
    if boundary.is_empty()
        || boundary.len() > MOST_BOUNDARY_CHARACTERS
        || boundary.ends_with(' ')
        || !boundary.bytes().all(fits)
    {
        return Err(invalid("the boundary is not 1 to 70 characters of RFC 2046 section 5.1.1"));
    }
    Ok(boundary)
}

/// Splits a message at its boundary. Ignores what precedes the first and follows the last boundary.
///
/// # Errors
/// [`ErrorKind::InvalidRequest`] if there is no part, a part has malformed or endless headers, or
/// the message ends without its last boundary; [`ErrorKind::PayloadTooLarge`] if there are more
/// than `most_parts`.
pub fn read(message: &Bytes, boundary: &str, most_parts: usize) -> Result<Vec<Part>> {
    let invalid = |problem: String| Error::new(ErrorKind::InvalidRequest, problem);
    let delimiter = format!("\r\n--{boundary}");
    let mut delimiters = memchr::memmem::find_iter(message, delimiter.as_bytes());
    // The first may be at the very start, without a preceding line end.
    let first = match message.strip_prefix(&delimiter.as_bytes()[2..]) {
        Some(_) => Some(delimiter.len() - 2),
        None => delimiters.next().map(|at| at + delimiter.len()),
    };
    let mut next = first.ok_or_else(|| {
        invalid("the body does not have the boundary that Content-Type states".to_owned())
    })?;
    let mut parts = Vec::new();
    loop {
        let number = parts.len() + 1;
        match behind_delimiter(&message[next..]) {
            Some(Behind::End) if parts.is_empty() => {
                return Err(invalid("the body has no part".to_owned()));
            }
            Some(Behind::End) => return Ok(parts),
            Some(Behind::Part(skipped)) => next += skipped,
            None => return Err(invalid(format!("the boundary before part {number} is malformed"))),
        }
        if parts.len() == most_parts {
            let problem = format!("the body has more than {most_parts} parts; send fewer at once");
            return Err(Error::new(ErrorKind::PayloadTooLarge, problem));
        }
        // A part without headers begins with the empty line that ends them.
        let (content_type, length) = headers(&message[next..])
            .ok_or_else(|| invalid(format!("the headers of part {number} are malformed")))?;
        let start = next + length;
        // Content may be empty: the line end of the headers then also belongs to the delimiter.
        let end = loop {
            match delimiters.next() {
                Some(at) if at + 2 >= start => break at,
                Some(_) => {}
                None => {
                    return Err(invalid(format!(
                        "part {number} ends without a boundary: send it whole"
                    )));
                }
            }
        };
        next = end + delimiter.len();
        parts.push(Part { content_type, data: message.slice(start.min(end)..end) });
    }
}

/// What follows a delimiter.
enum Behind {
    /// The end of the message.
    End,
    /// A part, which begins after this many bytes.
    Part(usize),
}

fn behind_delimiter(rest: &[u8]) -> Option<Behind> {
    if rest.starts_with(b"--") {
        return Some(Behind::End);
    }
    // Mail gateways may have appended blanks.
    let blanks = rest.iter().take(80).take_while(|b| matches!(b, b' ' | b'\t')).count();
    rest[blanks..].starts_with(b"\r\n").then_some(Behind::Part(blanks + 2))
}

/// Returns the content type from the headers at the start of a part, and the length of the headers
/// including the empty line.
fn headers(part: &[u8]) -> Option<(Option<MediaType>, usize)> {
    let head = &part[..part.len().min(MOST_HEADER_BYTES)];
    if head.starts_with(b"\r\n") {
        return Some((None, 2));
    }
    let length = memchr::memmem::find(head, b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&head[..length]).ok()?;
    let mut content_type = None;
    for line in text.split("\r\n").filter(|line| !line.is_empty()) {
        // A folded line continues the previous one; no header used here is ever folded.
        if line.starts_with([' ', '\t']) {
            continue;
        }
        let (name, value) = line.split_once(':')?;
        if name.trim().eq_ignore_ascii_case("Content-Type") {
            content_type = MediaType::parse(value.trim());
        }
    }
    Some((content_type, length))
}

/// Writes a message, part by part.
pub struct Writer<W> {
    out: W,
    boundary: String,
    is_first: bool,
}

/// Generates a boundary that occurs in the content with a probability of 1 in 2^122.
pub fn new_boundary() -> String {
    format!("part-{}", Uuid::new_v4().simple())
}

/// Returns the value of `Content-Type` for a message whose parts have the type `media_type`.
pub fn content_type(media_type: &str, boundary: &str) -> String {
    format!("multipart/related; type=\"{media_type}\"; boundary={boundary}")
}

impl<W: Write> Writer<W> {
    /// Creates a message with this boundary, for example one of [`new_boundary`].
    pub fn new(out: W, boundary: &str) -> Self {
        Self { out, boundary: boundary.to_owned(), is_first: true }
    }

    /// Begins a part with this `Content-Type`; write its content to the returned writer.
    ///
    /// # Errors
    /// Propagates the errors of writing.
    pub fn part(&mut self, content_type: &str) -> std::io::Result<&mut W> {
        let line_end = if std::mem::take(&mut self.is_first) { "" } else { "\r\n" };
        let boundary = &self.boundary;
        write!(self.out, "{line_end}--{boundary}\r\nContent-Type: {content_type}\r\n\r\n")?;
        Ok(&mut self.out)
    }

    /// Ends the message.
    ///
    /// # Errors
    /// Propagates the errors of writing.
    pub fn finish(mut self) -> std::io::Result<W> {
        write!(self.out, "\r\n--{}--\r\n", self.boundary)?;
        Ok(self.out)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn split(message: &str) -> Result<Vec<Part>> {
        read(&Bytes::copy_from_slice(message.as_bytes()), "b", 3)
    }

    fn texts(message: &str) -> Vec<String> {
        let parts = split(message).unwrap();
        parts.iter().map(|p| String::from_utf8(p.data.to_vec()).unwrap()).collect()
    }

    #[test]
    fn parts_are_what_is_between_boundaries() {
        assert_eq!(texts("--b\r\n\r\nx\r\n--b--"), ["x"]);
        assert_eq!(
            texts("preamble\r\n--b \t\r\nA: b\r\n\r\nx\r\n\r\n--b--\r\nepilogue"),
            ["x\r\n"]
        );
        assert_eq!(texts("--b\r\n\r\n--\r\n--b\r\nA: b\r\n c: d\r\n\r\n\r\n--b--"), ["--", ""]);
        // If there is no content, one line end may serve both.
        assert_eq!(texts("--b\r\nA: b\r\n\r\n--b--"), [""]);
        let [part] =
            &split("--b\r\ncontent-TYPE: application/dicom\r\n\r\nx\r\n--b--").unwrap()[..]
        else {
            panic!("one part");
        };
        assert_eq!(part.content_type.as_ref().unwrap().essence, "application/dicom");
    }

    #[test]
    fn malformed_messages_are_refused() {
        for message in [
            "",
            "x",
            "--b",
            "--b--",
            "--b\r\n",
            "--b\r\n\r\nx",
            "--b\r\n\r\nx\r\n--",
            "--b\r\n\r\nx\r\n--b",
            "--b\r\n\r\nx\r\n--b\r\n\r\ny",
            "--bb\r\n\r\nx\r\n--bb--",
            "--b\r\nno header\r\n\r\nx\r\n--b--",
            "--b\r\nA: b",
            "--c\r\n\r\nx\r\n--c--",
        ] {
            let e = split(message).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::InvalidRequest, "{message:?}: {e}");
        }
        let many = format!("{}--b--", "--b\r\n\r\nx\r\n".repeat(4));
        assert_eq!(split(&many).unwrap_err().kind(), ErrorKind::PayloadTooLarge);
        let long = format!("--b\r\nA: {}\r\n\r\nx\r\n--b--", "y".repeat(MOST_HEADER_BYTES));
        assert!(split(&long).is_err());
    }

    #[test]
    fn boundaries_are_checked() {
        let of = |text: &str| boundary(&MediaType::parse(text).unwrap()).map(str::to_owned);
        assert_eq!(of("multipart/related; boundary=\"a b\"").unwrap(), "a b");
        for bad in
            ["", "; boundary=\"\"", "; boundary=\"a \"", "; boundary=\"a\\\"b\"", "; boundary=a@"]
        {
            assert!(of(&format!("multipart/related{bad}")).is_err(), "{bad}");
        }
        assert!(of(&format!("multipart/related; boundary={}", "a".repeat(71))).is_err());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            contents in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..6)
        ) {
            let boundary = new_boundary();
            let mut writer = Writer::new(Vec::new(), &boundary);
            for content in &contents {
                writer.part("application/dicom").unwrap().extend_from_slice(content);
            }
            let message = Bytes::from(writer.finish().unwrap());
            let kind = MediaType::parse(&content_type("application/dicom", &boundary)).unwrap();
            let parts = read(&message, super::boundary(&kind).unwrap(), 10).unwrap();
            let read: Vec<&[u8]> = parts.iter().map(|part| &part.data[..]).collect();
            prop_assert_eq!(read, contents.iter().map(Vec::as_slice).collect::<Vec<_>>());
        }

        #[test]
        fn any_bytes_are_read_or_refused(message in "(--b|\r\n|--|[a:;]){0,40}") {
            if let Ok(parts) = read(&Bytes::from(message.clone()), "b", 5) {
                let total: usize = parts.iter().map(|part| part.data.len()).sum();
                prop_assert!(total <= message.len() && parts.len() <= 5);
            }
        }
    }
}
