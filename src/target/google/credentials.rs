//! Credentials for Google. A token is fetched at the last moment, cached by its source and never shown.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use gcp_auth::TokenProvider;
use reqwest::header::HeaderValue;
use tokio::sync::OnceCell;

use super::GoogleError;

/// The scope that all APIs called by rolecall accept.
const SCOPES: &[&str] = &["https://www.googleapis.com/auth/cloud-platform"];

/// Timeout of finding credentials and fetching a token, together. A metadata server answers in milliseconds and a token
/// endpoint in well under a second; ten seconds allow for the source's own retries.
const TOKEN_TIMEOUT: Duration = Duration::from_secs(10);

/// The credentials to use, as named by `--google-credentials`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Credentials {
    /// Application Default Credentials: a service account key named by `GOOGLE_APPLICATION_CREDENTIALS`, gcloud's
    /// application default login, the metadata server (Workload Identity on GKE), gcloud itself. In that order.
    Adc,
    /// No credentials, for an emulator.
    None,
}

/// Error for a word that does not name credentials.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` names no credentials: write adc or none")]
pub(crate) struct CredentialsError(String);

impl FromStr for Credentials {
    type Err = CredentialsError;

    fn from_str(text: &str) -> Result<Self, CredentialsError> {
        match text {
            "adc" => Ok(Self::Adc),
            "none" => Ok(Self::None),
            other => Err(CredentialsError(other.chars().take(40).collect())),
        }
    }
}

impl fmt::Display for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Adc => "adc",
            Self::None => "none",
        })
    }
}

impl Credentials {
    /// The source of tokens. Nothing is read or called before the first token is requested.
    #[must_use]
    pub(crate) fn source(self) -> Arc<dyn TokenSource> {
        match self {
            Self::Adc => Arc::new(ApplicationDefault::default()),
            Self::None => Arc::new(NoCredentials),
        }
    }
}

/// A bearer token, ready to be sent. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Bearer(HeaderValue);

impl Bearer {
    /// Turns a token into a header.
    ///
    /// # Errors
    /// [`GoogleError::Unauthenticated`] when the token has bytes that a header cannot contain. The error does not
    /// repeat the token.
    pub(crate) fn new(token: &str) -> Result<Self, GoogleError> {
        let mut value = HeaderValue::try_from(format!("Bearer {token}"))
            .map_err(|_| unauthenticated("the token has characters that cannot be sent"))?;
        value.set_sensitive(true);
        Ok(Self(value))
    }

    pub(super) fn into_header(self) -> HeaderValue {
        self.0
    }
}

impl fmt::Debug for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bearer(redacted)")
    }
}

/// Source of bearer tokens.
pub(crate) trait TokenSource: Send + Sync + 'static {
    /// A currently valid token, or `None` when requests are sent without one. Implementations cache tokens.
    fn token(&self) -> BoxFuture<'_, Result<Option<Bearer>, GoogleError>>;

    /// True when this source can return a token. Such a source is not used with an endpoint that must not receive one.
    fn has_tokens(&self) -> bool {
        true
    }
}

/// No credentials.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct NoCredentials;

impl TokenSource for NoCredentials {
    fn token(&self) -> BoxFuture<'_, Result<Option<Bearer>, GoogleError>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    fn has_tokens(&self) -> bool {
        false
    }
}

/// Application Default Credentials, through the crate `gcp_auth`. They are loaded when the first token is requested, by
/// one caller at a time, and again after a failure.
#[derive(Default)]
pub(crate) struct ApplicationDefault {
    provider: OnceCell<Arc<dyn TokenProvider>>,
}

impl ApplicationDefault {
    /// Uses a given provider, such as a service account key read from a file.
    #[cfg(test)]
    #[must_use]
    pub(crate) fn with_provider(provider: Arc<dyn TokenProvider>) -> Self {
        Self { provider: OnceCell::new_with(Some(provider)) }
    }

    async fn fetch(&self) -> Result<Bearer, gcp_auth_failure::Failure> {
        let provider = self.provider.get_or_try_init(gcp_auth::provider).await?;
        let token = provider.token(SCOPES).await?;
        Ok(Bearer::new(token.as_str())?)
    }
}

impl fmt::Debug for ApplicationDefault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApplicationDefault").field("found", &self.provider.initialized()).finish()
    }
}

impl TokenSource for ApplicationDefault {
    fn token(&self) -> BoxFuture<'_, Result<Option<Bearer>, GoogleError>> {
        Box::pin(async {
            match tokio::time::timeout(TOKEN_TIMEOUT, self.fetch()).await {
                Ok(Ok(bearer)) => Ok(Some(bearer)),
                Ok(Err(failure)) => Err(failure.into()),
                Err(_) => Err(unauthenticated("no token came within 10 s")),
            }
        })
    }
}

fn unauthenticated(message: &str) -> GoogleError {
    GoogleError::Unauthenticated { message: message.to_owned() }
}

/// Both kinds of failure of a fetch, so that `?` works for either.
mod gcp_auth_failure {
    use super::GoogleError;

    pub(super) enum Failure {
        Source(gcp_auth::Error),
        Token(GoogleError),
    }

    impl From<gcp_auth::Error> for Failure {
        fn from(error: gcp_auth::Error) -> Self {
            Self::Source(error)
        }
    }

    impl From<GoogleError> for Failure {
        fn from(error: GoogleError) -> Self {
            Self::Token(error)
        }
    }

    impl From<Failure> for GoogleError {
        fn from(failure: Failure) -> Self {
            match failure {
                // Display only: no variant of it contains a token, a key or an answer.
                Failure::Source(error) => Self::Unauthenticated { message: describe(&error) },
                Failure::Token(error) => error,
            }
        }
    }

    fn describe(error: &gcp_auth::Error) -> String {
        match error {
            gcp_auth::Error::NoAuthMethod(..) => {
                "no credentials found: set GOOGLE_APPLICATION_CREDENTIALS to a service account key, run `gcloud auth \
                 application-default login`, or use Workload Identity"
                    .to_owned()
            }
            gcp_auth::Error::Json(what, _) if what.contains("ApplicationCredentials") => format!(
                "{what}: the file is not a service account key (workload identity federation and impersonation files \
                 are not supported)"
            ),
            other => other.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bearer_shows_no_token_in_debug_and_errors() {
        let bearer = Bearer::new("ya29.secret").unwrap();
        assert_eq!(format!("{bearer:?}"), "Bearer(redacted)");
        assert!(!format!("{:?}", bearer.into_header()).contains("secret"));
        let refused = Bearer::new("ya29.secret\n").unwrap_err();
        assert!(!format!("{refused:?} {refused}").contains("secret"));
    }

    #[test]
    fn credentials_are_written_as_they_are_read() {
        for word in ["adc", "none"] {
            assert_eq!(word.parse::<Credentials>().unwrap().to_string(), word);
        }
        assert_eq!(
            "ADC".parse::<Credentials>().unwrap_err().to_string(),
            "`ADC` names no credentials: write adc or none"
        );
    }

    #[tokio::test]
    async fn no_credentials_give_no_token() {
        assert_eq!(Credentials::None.source().token().await, Ok(None));
        assert!(!Credentials::None.source().has_tokens());
    }

    #[test]
    fn application_default_credentials_are_not_looked_for_before_the_first_token() {
        let source = ApplicationDefault::default();
        assert!(source.has_tokens());
        assert_eq!(format!("{source:?}"), "ApplicationDefault { found: false }");
    }
}
