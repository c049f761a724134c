//! Hints for users at a terminal. Error messages are written for clients of the server and speak of
//! request fields; hints translate them to flags.

use crate::error::{Error, ErrorKind};

/// Phrases in messages, and the flags of `run` that apply.
const FLAGS: [(&str, &str); 6] = [
    ("the policy \"gaps\"", "add --gaps interpolate"),
    (
        "policy \"volumes\"",
        "add --volume with a number of the list, or --volumes first, largest or each",
    ),
    ("the policy \"duplicates\"", "add --duplicates first"),
    ("the policy \"mismatch\"", "add --mismatch warn"),
    ("name one by seriesInstanceUID", "add --series with a UID of the list"),
    ("name one by its SeriesInstanceUID", "add --series with a UID of the list"),
];

/// Returns the hints for a user who ran `subcommand`.
pub(super) fn of(error: &Error, subcommand: &str) -> Vec<String> {
    let mut hints = Vec::new();
    if subcommand == "run" {
        let message = error.message();
        let flags = FLAGS.iter().filter(|(words, _)| message.contains(words));
        hints.extend(flags.map(|(_, hint)| (*hint).to_owned()));
    }
    hints.extend(of_kind(error.kind(), subcommand));
    hints
}

fn of_kind(kind: ErrorKind, subcommand: &str) -> Option<String> {
    Some(match kind {
        ErrorKind::Configuration => {
            format!("`ahi-inference {subcommand} --help` lists the flags and their environment variables")
        }
        ErrorKind::InvalidModel if subcommand != "bundle" => {
            "`ahi-inference bundle check DIR` prints everything that keeps a package from being served"
                .to_owned()
        }
        ErrorKind::Credentials => "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; \
             `aws sts get-caller-identity` shows whether they are taken"
            .to_owned(),
        ErrorKind::AccessDenied => {
            "reading needs medical-imaging:GetImageSet, GetImageSetMetadata and GetImageFrame, or s3:GetObject \
             and s3:ListBucket, for the identity in use"
                .to_owned()
        }
        ErrorKind::Throttled | ErrorKind::Upstream => {
            "it was tried several times; try again in a while".to_owned()
        }
        ErrorKind::Internal => {
            "this is a defect of the program; please report it with what LOG_LEVEL=debug prints"
                .to_owned()
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_requests_become_flags() {
        let message = "a slice is missing; the policy \"gaps\": \"interpolate\" would fill it";
        let error = Error::new(ErrorKind::InvalidImage, message);
        assert_eq!(of(&error, "run"), ["add --gaps interpolate"]);
        assert!(of(&error, "fetch").is_empty());
        let error = Error::new(ErrorKind::Configuration, "no region");
        assert!(of(&error, "run")[0].contains("`ahi-inference run --help`"));
    }
}
