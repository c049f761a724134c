//! Credentials for services other than AWS.

use std::io::Read;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::config::{Credentials, SecretSource};
use crate::error::{Error, ErrorKind, Result};

/// Maximum size of a secret's file in bytes.
const LONGEST: u64 = 64 << 10;

/// Returns the value of the `Authorization` header.
///
/// # Errors
/// `Configuration` if the file of a secret cannot be read or is empty.
pub(super) async fn header(credentials: &Credentials) -> Result<String> {
    Ok(match credentials {
        Credentials::Bearer(token) => format!("Bearer {}", reveal(token).await?),
        Credentials::Basic(user, password) => {
            let pair = format!("{user}:{}", reveal(password).await?);
            format!("Basic {}", BASE64.encode(pair))
        }
    })
}

async fn reveal(source: &SecretSource) -> Result<String> {
    match source {
        SecretSource::Value(secret) => Ok(secret.reveal().to_owned()),
        SecretSource::File(path) => {
            let path = path.clone();
            tokio::task::spawn_blocking(move || read(&path))
                .await
                .map_err(|e| Error::internal("reading a secret was aborted").caused_by(e))?
        }
    }
}

/// Reads the secret in a file, a single line; editors end it with a line feed.
fn read(path: &Path) -> Result<String> {
    let unusable = |why: String| {
        let what = format!("the file of the archive's token or password cannot be used: {why}");
        Error::new(ErrorKind::Configuration, what)
    };
    let file = std::fs::File::open(path).map_err(|e| unusable(e.kind().to_string()))?;
    let mut text = String::new();
    file.take(LONGEST).read_to_string(&mut text).map_err(|e| unusable(e.kind().to_string()))?;
    let secret = text.trim();
    if secret.is_empty() || secret.chars().any(char::is_control) {
        return Err(unusable("it is not one line of text".to_owned()));
    }
    Ok(secret.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn secrets_come_from_settings_or_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "hunter2\n").unwrap();
        let bearer = Credentials::Bearer(SecretSource::File(path.clone()));
        assert_eq!(header(&bearer).await.unwrap(), "Bearer hunter2");
        std::fs::write(&path, "next").unwrap();
        assert_eq!(header(&bearer).await.unwrap(), "Bearer next");
        let basic = SecretSource::Value("open sesame".parse().unwrap());
        let basic = Credentials::Basic("Aladdin".to_owned(), basic);
        assert_eq!(header(&basic).await.unwrap(), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        for text in ["", "\n", "a\nb", "a\u{7}"] {
            std::fs::write(&path, text).unwrap();
            let error = header(&bearer).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Configuration, "{text:?}");
        }
        std::fs::remove_file(&path).unwrap();
        assert_eq!(header(&bearer).await.unwrap_err().kind(), ErrorKind::Configuration);
    }
}
