//! Encodes events as text: one JSON object per line, or server-sent events with the same objects.

use axum::body::Bytes;
use serde_json::{Map, Value};

use crate::server::accept::Offer;

/// The encoding of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) enum Framing {
    /// One event per line.
    Lines,
    /// Server-sent events (WHATWG HTML, section 9.2): `event` is the name, `data` the object.
    ServerSent,
}

impl Framing {
    /// Returns the framing of a streaming offer.
    pub fn of(offer: Offer) -> Option<Self> {
        match offer {
            Offer::JsonLines => Some(Self::Lines),
            Offer::EventStream => Some(Self::ServerSent),
            Offer::Json | Offer::Dicom => None,
        }
    }

    /// Encodes the event `name` with `fields`. `last` is an optional final field whose value is
    /// already JSON text; it is not copied.
    pub(super) fn event(
        self,
        name: &'static str,
        fields: Map<String, Value>,
        last: Option<(&str, Vec<u8>)>,
    ) -> Vec<Bytes> {
        let mut object = Map::new();
        object.insert("event".to_owned(), name.into());
        object.extend(fields);
        // JSON escapes line ends within strings, so the text is a single line.
        let mut text = Value::Object(object).to_string();
        if self == Self::ServerSent {
            text = format!("event: {name}\ndata: {text}");
        }
        let end = match self {
            Self::Lines => "\n",
            Self::ServerSent => "\n\n",
        };
        match last {
            None => vec![Bytes::from(text + end)],
            Some((key, value)) => {
                // Removes the closing brace to append the last field.
                text.pop();
                let text = format!("{text},{}:", Value::from(key));
                vec![text.into(), value.into(), format!("}}{end}").into()]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn text(framing: Framing, fields: Value, last: Option<(&str, Vec<u8>)>) -> String {
        let fields = fields.as_object().unwrap().clone();
        let parts: Vec<u8> = framing.event("queued", fields, last).into_iter().flatten().collect();
        String::from_utf8(parts).unwrap()
    }

    #[test]
    fn an_event_is_one_line_whatever_is_in_it() {
        let fields = json!({"place": 3, "text": "a\nb\rc"});
        let object = r#"{"event":"queued","place":3,"text":"a\nb\rc"}"#;
        assert_eq!(text(Framing::Lines, fields.clone(), None), format!("{object}\n"));
        let sent = text(Framing::ServerSent, fields, None);
        assert_eq!(sent, format!("event: queued\ndata: {object}\n\n"));
    }

    #[test]
    fn json_text_is_put_in_as_it_is() {
        let report = || Some(("report", br#"{"results":[]}"#.to_vec()));
        let object = r#"{"event":"queued","a":1,"report":{"results":[]}}"#;
        assert_eq!(text(Framing::Lines, json!({"a": 1}), report()), format!("{object}\n"));
        let sent = text(Framing::ServerSent, json!({}), report());
        assert_eq!(
            sent,
            "event: queued\ndata: {\"event\":\"queued\",\"report\":{\"results\":[]}}\n\n"
        );
    }
}
