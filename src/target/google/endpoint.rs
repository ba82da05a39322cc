//! Endpoints of Google's APIs, and the rule about which of them may receive a token.

use std::fmt;
use std::str::FromStr;

use reqwest::Url;

/// Cloud Run's global host. It serves every region.
const CLOUD_RUN: &str = "https://run.googleapis.com/";
/// Resource Manager, which knows projects.
const RESOURCE_MANAGER: &str = "https://cloudresourcemanager.googleapis.com/";

/// Why a text is not a valid endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EndpointError {
    /// Not an absolute URL with a host.
    #[error("the endpoint is not a URL: write https://HOST/ or http://127.0.0.1:PORT/")]
    NotAUrl,
    /// Another scheme than http or https.
    #[error("the endpoint has the scheme `{0}`: write https, or http for a loopback host")]
    Scheme(String),
    /// Plain http to a host that is not this machine.
    #[error(
        "the endpoint names `{0}` over plain http, which is for 127.0.0.0/8, [::1] and localhost only: write https"
    )]
    PlainHttp(String),
    /// User name, password, query or fragment.
    #[error("the endpoint has a user name, a password, a query or a fragment: write scheme, host, port and path only")]
    Extras,
}

/// The location of the APIs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum Endpoint {
    /// Each API at its own host under `googleapis.com`.
    #[default]
    Google,
    /// One base for all APIs, as given by `--google-endpoint`: an emulator, or a private endpoint of Google.
    Base(Base),
}

/// A validated base URL. Its path ends with `/`.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Base(Url);

impl fmt::Debug for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0)
    }
}

impl Endpoint {
    /// The base of Cloud Run's Admin API, with a final `/`.
    #[must_use]
    pub(crate) fn cloud_run(&self) -> &str {
        self.at(CLOUD_RUN)
    }

    /// The base of the Resource Manager API, with a final `/`.
    #[must_use]
    pub(crate) fn resource_manager(&self) -> &str {
        self.at(RESOURCE_MANAGER)
    }

    fn at(&self, host: &'static str) -> &str {
        match self {
            Self::Google => host,
            Self::Base(base) => base.0.as_str(),
        }
    }

    /// True when every request stays on this machine in plain http.
    #[must_use]
    pub(crate) fn is_plain_loopback(&self) -> bool {
        matches!(self, Self::Base(base) if base.0.scheme() == "http")
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let mut url = Url::parse(text).map_err(|_| EndpointError::NotAUrl)?;
        let host = url.host_str().unwrap_or_default().to_owned();
        match url.scheme() {
            "https" if !host.is_empty() => {}
            "http" if is_loopback(&host) => {}
            "http" if !host.is_empty() => return Err(EndpointError::PlainHttp(host)),
            "https" | "http" => return Err(EndpointError::NotAUrl),
            other => return Err(EndpointError::Scheme(other.to_owned())),
        }
        let extras = !url.username().is_empty() || url.password().is_some();
        if extras || url.query().is_some() || url.fragment().is_some() {
            return Err(EndpointError::Extras);
        }
        if !url.path().ends_with('/') {
            let path = format!("{}/", url.path());
            url.set_path(&path);
        }
        Ok(Self::Base(Base(url)))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.cloud_run())
    }
}

fn is_loopback(host: &str) -> bool {
    // In a URL, an IPv6 address is in brackets.
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// True when a request to this URL may carry Google credentials: `https://*.googleapis.com` on the standard port,
/// without a user name or password in the URL. Checked with the URL that is actually sent, not with the configured
/// base.
pub(super) fn may_carry_token(url: &Url) -> bool {
    let google = url.host_str().is_some_and(|host| {
        // The parser has already lower-cased the host and mapped look-alike dots.
        host.strip_suffix(".googleapis.com").is_some_and(|label| !label.is_empty() && !label.starts_with('.'))
    });
    google && url.scheme() == "https" && url.port().is_none() && url.username().is_empty() && url.password().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn carries(text: &str) -> bool {
        may_carry_token(&Url::parse(text).unwrap())
    }

    #[test]
    fn a_token_goes_to_hosts_of_googleapis_com_over_https() {
        for url in [
            "https://run.googleapis.com/v2/x",
            "https://europe-west1-run.googleapis.com/",
            "https://RUN.GoogleAPIs.com/",
            "https://run.googleapis.com:443/",
            "https://run-acme.p.googleapis.com/",
        ] {
            assert!(carries(url), "{url}");
        }
    }

    #[test]
    fn a_token_goes_nowhere_else() {
        for url in [
            "http://run.googleapis.com/",
            "https://run.googleapis.com.evil.example/",
            "https://evil.example/run.googleapis.com",
            "https://evil.example/?.googleapis.com",
            "https://evil.example/#.googleapis.com",
            "https://run.googleapis.com@evil.example/",
            "https://run.googleapis.com:443@evil.example/",
            "https://user@run.googleapis.com/",
            "https://:secret@run.googleapis.com/",
            "https://run.googleapis.com:8443/",
            "https://run.googleapis.com:80/",
            "https://rungoogleapis.com/",
            "https://evilgoogleapis.com/",
            "https://googleapis.com/",
            "https://.googleapis.com/",
            "https://run.googleapis.com./",
            "https://run.googleapis.co/",
            "https://run.googleapis.com%2eevil.example/",
            "https://127.0.0.1/",
            "http://127.0.0.1:8080/",
            "https://[::1]/",
            "ftp://run.googleapis.com/",
        ] {
            // A URL that the parser refuses cannot be sent at all.
            if let Ok(parsed) = Url::parse(url) {
                assert!(!may_carry_token(&parsed), "{url}");
            }
        }
    }

    #[test]
    fn a_backslash_before_an_at_sign_still_means_the_host_that_is_really_asked() {
        let url = Url::parse("https://run.googleapis.com\\@evil.example/").unwrap();
        assert_eq!(url.host_str(), Some("run.googleapis.com"));
        assert!(may_carry_token(&url));
    }

    #[test]
    fn plain_http_is_accepted_for_loopback_hosts_only() {
        for good in [
            "http://127.0.0.1:8080",
            "http://127.9.9.9/",
            "http://[::1]:1/",
            "http://localhost:9/x",
            "https://a.example",
        ] {
            let endpoint: Endpoint = good.parse().unwrap();
            assert!(endpoint.cloud_run().ends_with('/'), "{endpoint}");
        }
        for (bad, error) in [
            ("http://10.0.0.1/", EndpointError::PlainHttp("10.0.0.1".to_owned())),
            ("http://127.0.0.1.evil.example/", EndpointError::PlainHttp("127.0.0.1.evil.example".to_owned())),
            ("http://localhost.evil.example/", EndpointError::PlainHttp("localhost.evil.example".to_owned())),
            ("http://run.googleapis.com/", EndpointError::PlainHttp("run.googleapis.com".to_owned())),
            ("http://127.0.0.1@evil.example/", EndpointError::PlainHttp("evil.example".to_owned())),
            ("http://u:p@127.0.0.1/", EndpointError::Extras),
            ("https://a.example/?q", EndpointError::Extras),
            ("https://a.example/#f", EndpointError::Extras),
            ("ftp://a.example/", EndpointError::Scheme("ftp".to_owned())),
            ("127.0.0.1:8080", EndpointError::NotAUrl),
            ("", EndpointError::NotAUrl),
            ("http://", EndpointError::NotAUrl),
        ] {
            assert_eq!(bad.parse::<Endpoint>().unwrap_err(), error, "{bad}");
        }
    }

    #[test]
    fn a_path_of_the_base_is_kept() {
        let endpoint: Endpoint = "https://proxy.example/google".parse().unwrap();
        assert_eq!(endpoint.cloud_run(), "https://proxy.example/google/");
        assert!(!endpoint.is_plain_loopback());
    }
}
