//! Policies for series that are not one clean stack of slices, set by requests, model packages and
//! settings. Each may leave them open; the request takes precedence over the package, and the
//! package over the server's settings.

use std::fmt;

use clap::ValueEnum;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// Uneven distances between slices, and missing slices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Gaps {
    /// Refuse the series, naming the instances on both sides: a missing slice must not become a
    /// silently distorted segmentation.
    #[default]
    Refuse,
    /// Interpolate linearly between neighbours onto a regular grid as fine as the smallest distance;
    /// labels return to the source's own slices.
    Interpolate,
}

/// Several slices at one position that no attribute tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Duplicates {
    /// Refuse the series, naming two instances.
    #[default]
    Refuse,
    /// Take the one with the lowest InstanceNumber.
    First,
}

/// Several volumes in one series: phases, echoes, b-values, stacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Volumes {
    /// Refuse the series with a list of them.
    #[default]
    Refuse,
    /// Take the first, in the order of what tells them apart.
    First,
    /// Take the one with most voxels; the first of equal ones.
    Largest,
    /// Segment each: one result for every volume.
    Each,
}

/// A series that is not what the model was made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mismatch {
    /// Refuse it with the reason.
    #[default]
    Refuse,
    /// Segment it and warn.
    Warn,
}

/// Policies as specified by one source; `None` leaves the choice to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct PolicyChoice {
    /// Uneven distances and missing slices.
    pub gaps: Option<Gaps>,
    /// Several slices at one position.
    pub duplicates: Option<Duplicates>,
    /// Several volumes in one series.
    pub volumes: Option<Volumes>,
    /// A series that does not match the model.
    pub mismatch: Option<Mismatch>,
}

impl PolicyChoice {
    /// Returns this choice, completed by `other`.
    pub fn or(self, other: Self) -> Self {
        Self {
            gaps: self.gaps.or(other.gaps),
            duplicates: self.duplicates.or(other.duplicates),
            volumes: self.volumes.or(other.volumes),
            mismatch: self.mismatch.or(other.mismatch),
        }
    }

    /// Returns the policies, strict ones where nothing was chosen.
    pub fn decided(self) -> Policy {
        Policy {
            gaps: self.gaps.unwrap_or_default(),
            duplicates: self.duplicates.unwrap_or_default(),
            volumes: self.volumes.unwrap_or_default(),
            mismatch: self.mismatch.unwrap_or_default(),
        }
    }
}

/// The policies in effect for one input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs)]
pub struct Policy {
    pub gaps: Gaps,
    pub duplicates: Duplicates,
    pub volumes: Volumes,
    pub mismatch: Mismatch,
}

/// Maximum length of an attribute name or value in a volume choice.
const LONGEST: usize = 200;

/// Maximum number of attributes in a volume choice.
const MOST_ATTRIBUTES: usize = 16;

/// Selects a volume of a series: by its number in the list of volumes, by its name there, or by the
/// values of distinguishing attributes, such as `{"EchoTime": 4.6}`.
#[derive(Debug, Clone, PartialEq)]
pub enum VolumeChoice {
    /// Its number, starting at 1.
    Number(u32),
    /// Its name.
    Name(String),
    /// Attribute keywords and values.
    Attributes(Vec<(String, Value)>),
}

/// The requested volume, and the source of the request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Wanted<'c> {
    /// None is given; the policy decides.
    Any,
    /// Selected by the request: any other volume is an error.
    Asked(&'c VolumeChoice),
    /// Default of the model package if there are several volumes; ignored for a series with only
    /// one.
    Usual(&'c VolumeChoice),
}

/// The value of an attribute that distinguishes volumes.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A number.
    Number(f64),
    /// Text; multiple values are separated by backslashes.
    Text(String),
}

impl Value {
    /// Orders numbers before texts, numbers by value and texts lexicographically.
    pub fn compare(&self, other: &Self) -> std::cmp::Ordering {
        match (self, other) {
            (Self::Number(a), Self::Number(b)) => a.total_cmp(b),
            (Self::Number(_), Self::Text(_)) => std::cmp::Ordering::Less,
            (Self::Text(_), Self::Number(_)) => std::cmp::Ordering::Greater,
            (Self::Text(a), Self::Text(b)) => a.cmp(b),
        }
    }

    /// Whether `wanted` matches this value: numbers up to rounding, texts ignoring case.
    pub fn is(&self, wanted: &Self) -> bool {
        let number = |value: &Self| match value {
            Self::Number(n) => Some(*n),
            Self::Text(text) => text.trim().parse().ok(),
        };
        match (number(self), number(wanted)) {
            (Some(a), Some(b)) => (a - b).abs() <= 1e-6 * a.abs().max(b.abs()),
            _ => self.to_string().to_lowercase() == wanted.to_string().to_lowercase(),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

impl std::str::FromStr for VolumeChoice {
    type Err = String;

    /// Parses a number or a name; names of volumes have the form `KEYWORD=VALUE[,KEYWORD=VALUE…]`.
    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim() {
            "" => Err("must not be empty".to_owned()),
            text => match text.parse() {
                Ok(0) => Err("volumes are numbered from 1".to_owned()),
                Ok(number) => Ok(Self::Number(number)),
                Err(_) => Ok(Self::Name(text.to_owned())),
            },
        }
    }
}

impl<'de> Deserialize<'de> for VolumeChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ChoiceVisitor)
    }
}

struct ChoiceVisitor;

impl<'de> Visitor<'de> for ChoiceVisitor {
    type Value = VolumeChoice;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a number from 1, a name, or an object of at most {MOST_ATTRIBUTES} attributes by keyword"
        )
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<VolumeChoice, E> {
        match u32::try_from(number) {
            Ok(number) if number > 0 => Ok(VolumeChoice::Number(number)),
            _ => Err(E::invalid_value(serde::de::Unexpected::Unsigned(number), &self)),
        }
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<VolumeChoice, E> {
        if text.is_empty() || text.len() > LONGEST {
            return Err(E::invalid_length(text.len(), &self));
        }
        Ok(VolumeChoice::Name(text.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<VolumeChoice, A::Error> {
        let mut attributes = Vec::new();
        while let Some((keyword, value)) = map.next_entry::<Short, Value>()? {
            if attributes.len() == MOST_ATTRIBUTES {
                return Err(A::Error::invalid_length(MOST_ATTRIBUTES + 1, &self));
            }
            attributes.push((keyword.0, value));
        }
        if attributes.is_empty() {
            return Err(A::Error::invalid_length(0, &self));
        }
        Ok(VolumeChoice::Attributes(attributes))
    }
}

/// A string of limited length.
struct Short(String);

impl<'de> Deserialize<'de> for Short {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::Text(text) => Ok(Self(text)),
            Value::Number(_) => Err(D::Error::custom("a number, expected a string")),
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl Visitor<'_> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a number or a string of at most {LONGEST} bytes")
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(Value::Number(number))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Number(number as f64))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(Value::Number(number as f64))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Value, E> {
        if text.len() > LONGEST {
            return Err(E::invalid_length(text.len(), &self));
        }
        Ok(Value::Text(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_goes_before_the_package_and_the_package_before_the_server() {
        let of = |json: &str| serde_json::from_str::<PolicyChoice>(json).unwrap();
        let request = of(r#"{"gaps": "interpolate"}"#);
        let package = of(r#"{"gaps": "refuse", "volumes": "each"}"#);
        let server = of(r#"{"volumes": "first", "mismatch": "warn"}"#);
        let policy = request.or(package).or(server).decided();
        assert_eq!(
            policy,
            Policy {
                gaps: Gaps::Interpolate,
                duplicates: Duplicates::Refuse,
                volumes: Volumes::Each,
                mismatch: Mismatch::Warn,
            }
        );
        for bad in [r#"{"gaps": "average"}"#, r#"{"gap": "refuse"}"#, r#"{"volumes": 1}"#] {
            assert!(serde_json::from_str::<PolicyChoice>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_volume_is_named_in_three_ways() {
        let of = |json: &str| serde_json::from_str::<VolumeChoice>(json);
        assert_eq!(of("2").unwrap(), VolumeChoice::Number(2));
        assert_eq!(of("\"EchoTime=4.6\"").unwrap(), VolumeChoice::Name("EchoTime=4.6".into()));
        let attributes = vec![
            ("EchoTime".to_owned(), Value::Number(4.6)),
            ("ComplexImageComponent".to_owned(), Value::Text("PHASE".into())),
        ];
        assert_eq!(
            of(r#"{"EchoTime": 4.6, "ComplexImageComponent": "PHASE"}"#).unwrap(),
            VolumeChoice::Attributes(attributes)
        );
        let long = format!("\"{}\"", "x".repeat(201));
        for bad in
            ["0", "-1", "1.5", "\"\"", "{}", "[]", "null", "5000000000", &long, r#"{"a": []}"#]
        {
            assert!(of(bad).is_err(), "{bad}");
        }
        assert_eq!("3".parse(), Ok(VolumeChoice::Number(3)));
        assert!("0".parse::<VolumeChoice>().is_err());
    }

    #[test]
    fn values_are_compared_as_numbers_where_they_are() {
        let (n, t) = (Value::Number, |text: &str| Value::Text(text.to_owned()));
        assert!(n(4.6).is(&t("4.60")) && n(4.6).is(&n(4.600_000_1)) && t("abc").is(&t("ABC")));
        assert!(!n(4.6).is(&n(4.7)) && !t("abc").is(&t("abd")) && !n(0.0).is(&n(1e-3)));
        assert_eq!(n(10.0).compare(&n(9.0)), std::cmp::Ordering::Greater);
    }
}
