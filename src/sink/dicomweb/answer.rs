//! Parses the response to a store: Referenced SOP, Failed SOP and Other Failures Sequence in DICOM
//! JSON (PS3.18 sections 10.5.3 and I.2, annex F). It is untrusted input: what cannot be parsed is
//! an error, and only its codes and the UIDs of our own instances are repeated.

use std::collections::HashMap;

use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, de};

use super::outcome::{Instance, Outcome, Status};

/// The media type of responses (PS3.18 section 8.7.3).
pub(super) const JSON: &str = "application/dicom+json";

/// A parsed response.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Answer {
    #[serde(rename = "00081199")]
    referenced: Sequence,
    #[serde(rename = "00081198")]
    failed: Sequence,
    #[serde(rename = "0008119A", alias = "0008119a")]
    other: Sequence,
}

/// A sequence whose items may be missing or null.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Sequence {
    #[serde(rename = "Value")]
    items: Option<Vec<Item>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Item {
    /// Referenced SOP Instance UID.
    #[serde(rename = "00081155")]
    uid: Text,
    #[serde(rename = "00081197")]
    failure: Code,
    #[serde(rename = "00081196")]
    warning: Code,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Text {
    #[serde(rename = "Value")]
    values: Option<Vec<Option<String>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Code {
    #[serde(rename = "Value")]
    values: Option<Vec<Number>>,
}

/// A number, which some archives write as text.
#[derive(Debug)]
struct Number(Option<u16>);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        let number = value.as_u64().or_else(|| value.as_str()?.trim().parse().ok());
        Ok(Self(number.and_then(|number| u16::try_from(number).ok())))
    }
}

impl Text {
    fn first(&self) -> Option<&str> {
        let text = self.values.as_ref()?.first()?.as_deref()?;
        Some(text.trim_end_matches(['\0', ' ']))
    }
}

impl Code {
    fn first(&self) -> Option<u16> {
        self.values.as_ref()?.first()?.0
    }
}

impl Sequence {
    fn items(&self) -> &[Item] {
        self.items.as_deref().unwrap_or_default()
    }
}

/// A data set on its own, or as the only element of a list.
struct One(Answer);

impl<'de> Deserialize<'de> for One {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneVisitor;

        impl<'de> Visitor<'de> for OneVisitor {
            type Value = One;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a data set")
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<One, A::Error> {
                Answer::deserialize(de::value::MapAccessDeserializer::new(map)).map(One)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<One, A::Error> {
                let first = list.next_element::<Answer>()?;
                if list.next_element::<IgnoredAny>()?.is_some() {
                    return Err(de::Error::custom("more than one data set"));
                }
                first.map(One).ok_or_else(|| de::Error::custom("no data set"))
            }
        }

        deserializer.deserialize_any(OneVisitor)
    }
}

impl Answer {
    /// Parses a response; `None` if it is not a data set in DICOM JSON.
    pub fn parse(json: &[u8]) -> Option<Self> {
        serde_json::from_slice::<One>(json).ok().map(|One(answer)| answer)
    }

    /// Whether it mentions any instance.
    pub fn says_something(&self) -> bool {
        [&self.referenced, &self.failed, &self.other].iter().any(|s| !s.items().is_empty())
    }

    /// Returns the outcome of each of `instances`. An instance that is not mentioned counts as
    /// stored if the status is 200 (`complete`) and no failure is reported.
    pub fn outcomes(&self, instances: &[&Instance], complete: bool) -> Vec<Outcome> {
        let referenced = by_uid(&self.referenced);
        let failed = by_uid(&self.failed);
        let nameless = self.other.items().iter().find_map(|item| item.failure.first());
        let none_failed = self.failed.items().is_empty() && self.other.items().is_empty();
        instances
            .iter()
            .map(|instance| {
                let uid = instance.sop_instance_uid.as_str();
                // An instance in both sequences was partially stored at best.
                if let Some(item) = failed.get(uid) {
                    return match item.failure.first() {
                        Some(code) => Outcome::refused(code),
                        None => Outcome::failed("the archive gives no reason"),
                    };
                }
                match (referenced.get(uid), nameless) {
                    (Some(item), _) => match item.warning.first() {
                        Some(code) => Outcome::warned(code),
                        None => Outcome::of(Status::Stored),
                    },
                    (None, Some(code)) => Outcome::refused(code),
                    (None, None) if complete && none_failed => Outcome::of(Status::Stored),
                    (None, None) => Outcome::failed("the archive's answer does not name it"),
                }
            })
            .collect()
    }
}

fn by_uid(sequence: &Sequence) -> HashMap<&str, &Item> {
    sequence.items().iter().filter_map(|item| Some((item.uid.first()?, item))).collect()
}

/// Returns the SOP Instance UIDs (0008,0018) in the response to a search (PS3.18 section 10.6.3);
/// `None` if it is malformed.
pub(super) fn found(json: &[u8]) -> Option<Vec<String>> {
    #[derive(Deserialize)]
    struct Instance {
        #[serde(rename = "00080018", default)]
        uid: Text,
    }
    let found: Vec<Instance> = serde_json::from_slice(json).ok()?;
    Some(found.iter().filter_map(|one| one.uid.first().map(str::to_owned)).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn instances(uids: &[&str]) -> Vec<Instance> {
        let instance = |uid: &&str| Instance {
            kind: "dicom-seg",
            study_instance_uid: "1.1".to_owned(),
            series_instance_uid: "1.2".to_owned(),
            sop_instance_uid: (*uid).to_owned(),
            bytes: bytes::Bytes::new(),
        };
        uids.iter().map(instance).collect()
    }

    fn read(answer: &serde_json::Value, complete: bool) -> Vec<Outcome> {
        let all = instances(&["1.3.1", "1.3.2", "1.3.3"]);
        let answer = Answer::parse(answer.to_string().as_bytes()).unwrap();
        answer.outcomes(&all.iter().collect::<Vec<_>>(), complete)
    }

    fn uid(uid: &str) -> serde_json::Value {
        json!({"vr": "UI", "Value": [uid]})
    }

    #[test]
    fn each_instance_has_what_was_said_of_it() {
        let answer = json!({
            "00081190": {"vr": "UR", "Value": ["http://archive/studies/1.1"]},
            "00081199": {"vr": "SQ", "Value": [
                {"00081155": uid("1.3.1")},
                {"00081155": uid("1.3.2\0"), "00081196": {"vr": "US", "Value": [45056]}},
            ]},
            "00081198": {"vr": "SQ", "Value": [
                {"00081155": uid("1.3.3"), "00081197": {"vr": "US", "Value": [290]}},
                {"00081155": uid("9.9"), "00081197": {"vr": "US", "Value": [272]}},
            ]},
        });
        for answer in [answer.clone(), json!([answer])] {
            let outcomes = read(&answer, false);
            assert_eq!(outcomes[0], Outcome::of(Status::Stored));
            assert_eq!(outcomes[1].status, Status::Warning);
            assert_eq!(outcomes[2], Outcome::failed("its SOP class is not supported (0122H)"));
        }
    }

    #[test]
    fn what_is_not_said_is_known_by_the_status_alone() {
        let nothing = json!({"00081198": {"vr": "SQ"}, "00081199": {"vr": "SQ", "Value": null}});
        assert!(read(&nothing, true).iter().all(|o| o.status == Status::Stored));
        assert!(read(&nothing, false).iter().all(|o| o.status == Status::Failed));
        let failure = json!({"00081198": {"Value": [{"00081155": uid("1.3.1")}]}});
        let outcomes = read(&failure, true);
        assert_eq!(outcomes[0], Outcome::failed("the archive gives no reason"));
        assert_eq!(outcomes[1], Outcome::failed("the archive's answer does not name it"));
        let nameless = json!({"0008119A": {"Value": [{"00081197": {"Value": ["43264"]}}]}});
        assert!(read(&nameless, true)[0].reason.as_ref().unwrap().contains("A900H"));
        let duplicate = json!({"00081198": {"Value": [
            {"00081155": uid("1.3.1"), "00081197": {"Value": [273]}}]}});
        assert_eq!(read(&duplicate, false)[0], Outcome::of(Status::Already));
    }

    #[test]
    fn what_is_no_data_set_is_no_answer() {
        for text in [
            "",
            "null",
            "[]",
            "[{}, {}]",
            "\"stored\"",
            "<NativeDicomModel/>",
            "{\"00081199\": 3}",
            "{\"00081199\": {\"Value\": [3]}}",
            "{\"00081199\": {\"Value\": [{\"00081155\": {\"Value\": [3]}}]}}",
            "{\"00081199\"",
            &"[".repeat(100_000),
        ] {
            assert!(Answer::parse(text.as_bytes()).is_none(), "{text:.40}");
        }
        let odd = json!({"00081198": {"Value": [
            {"00081155": uid("1.3.1"), "00081197": {"Value": [70000]}}, {}]}});
        assert_eq!(read(&odd, false)[0], Outcome::failed("the archive gives no reason"));
    }

    #[test]
    fn searches_find_instances() {
        let answer = json!([{"00080018": uid("1.3.1")}, {"00080016": uid("1.2")}]);
        assert_eq!(found(answer.to_string().as_bytes()).unwrap(), ["1.3.1"]);
        assert_eq!(found(b"[]").unwrap(), Vec::<String>::new());
        assert!(found(b"{}").is_none() && found(b"").is_none());
    }
}
