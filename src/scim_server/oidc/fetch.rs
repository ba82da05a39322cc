//! Reads the documents of an issuer over https: bounded, without redirects and without proxy, and from public addresses only.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Certificate, Client, Url, redirect};
use serde::Deserialize;

use super::jwt::object;
use super::keys::{self, Key};

/// Largest document, in bytes.
const MAX_DOCUMENT: usize = 256 * 1024;

/// Timeout of one document.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Timeout of connecting.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the keys of an issuer could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("`{0}` is not an https URL")]
    NotHttps(String),
    #[error("`{0}` is at a private, local or reserved address, which --allow-private-issuers permits")]
    PrivateAddress(String),
    #[error("`{url}` cannot be read: {source}")]
    Unreachable {
        url: String,
        #[source]
        source: reqwest::Error,
    },
    #[error("`{url}` answers {status}; redirects are not followed")]
    Status { url: String, status: u16 },
    #[error("`{0}` is larger than 256 KiB")]
    TooLarge(String),
    #[error("`{0}` is not the document that it should be")]
    Malformed(String),
    #[error("the discovery document has another issuer than `{0}`, which must be equal byte for byte")]
    OtherIssuer(String),
    #[error("`{0}` has no key for RS256 or ES256")]
    NoKeys(String),
}

/// A client that reads documents of issuers.
#[derive(Clone)]
pub(super) struct Fetcher {
    client: Client,
    allow_private: bool,
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

impl Fetcher {
    /// A client. `roots` are trusted beside those of the system.
    ///
    /// # Errors
    /// [`reqwest::Error`], when TLS cannot be set up.
    pub(super) fn new(allow_private: bool, roots: Vec<Certificate>) -> Result<Self, reqwest::Error> {
        let client = Client::builder()
            .https_only(true)
            .redirect(redirect::Policy::none())
            // A proxy would resolve names itself, where the addresses cannot be checked.
            .no_proxy()
            .dns_resolver(Arc::new(CheckedResolver { allow_private }))
            // A connection that is kept would outlive a change of the name's addresses.
            .pool_max_idle_per_host(0)
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TIMEOUT)
            .user_agent("rolecall")
            .tls_certs_merge(roots)
            .build()?;
        Ok(Self { client, allow_private })
    }

    /// The keys of an issuer, by its discovery document.
    pub(super) async fn keys(&self, issuer: &str) -> Result<Vec<Key>, FetchError> {
        let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let document = self.document(&url).await?;
        let discovery: Discovery = object(&document).ok_or(FetchError::Malformed(url))?;
        if discovery.issuer != issuer {
            return Err(FetchError::OtherIssuer(issuer.to_owned()));
        }
        let url = discovery.jwks_uri;
        let keys = keys::parse(&self.document(&url).await?).ok_or_else(|| FetchError::Malformed(url.clone()))?;
        if keys.is_empty() { Err(FetchError::NoKeys(url)) } else { Ok(keys) }
    }

    async fn document(&self, url: &str) -> Result<Vec<u8>, FetchError> {
        let shown: String = url.chars().filter(|c| !c.is_control()).take(300).collect();
        let parsed = Url::parse(url).ok().filter(|url| url.scheme() == "https");
        let parsed = parsed.ok_or_else(|| FetchError::NotHttps(shown.clone()))?;
        // A literal address is not resolved, so the resolver does not see it.
        let host = parsed.host_str().unwrap_or_default();
        let literal: Option<IpAddr> = host.trim_start_matches('[').trim_end_matches(']').parse().ok();
        if literal.is_some_and(|address| !self.allow_private && !is_public(address)) {
            return Err(FetchError::PrivateAddress(shown));
        }
        let failed = |source: reqwest::Error| {
            if is_refused_address(&source) {
                FetchError::PrivateAddress(shown.clone())
            } else {
                FetchError::Unreachable { url: shown.clone(), source: source.without_url() }
            }
        };
        let mut response = self.client.get(parsed).send().await.map_err(failed)?;
        let status = response.status().as_u16();
        if status != 200 {
            return Err(FetchError::Status { url: shown, status });
        }
        let mut document = Vec::new();
        while let Some(part) = response.chunk().await.map_err(failed)? {
            if document.len() + part.len() > MAX_DOCUMENT {
                return Err(FetchError::TooLarge(shown));
            }
            document.extend_from_slice(&part);
        }
        Ok(document)
    }
}

/// Resolves names, and refuses those with an address that is not public. The connection is made to the addresses that were checked.
struct CheckedResolver {
    allow_private: bool,
}

#[derive(Debug, thiserror::Error)]
#[error("the name has a private, local or reserved address")]
struct RefusedAddress;

fn is_refused_address(error: &reqwest::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(error);
    while let Some(error) = cause {
        if error.is::<RefusedAddress>() {
            return true;
        }
        cause = error.source();
    }
    false
}

impl Resolve for CheckedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let allow_private = self.allow_private;
        Box::pin(async move {
            let addresses: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            if !allow_private && !addresses.iter().all(|address| is_public(address.ip())) {
                return Err(RefusedAddress.into());
            }
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

/// Whether an address is one of the public Internet.
pub(super) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_documentation()
        // 0.0.0.0/8, 100.64.0.0/10, 192.0.0.0/24, 192.88.99.0/24, 198.18.0.0/15, 240.0.0.0/4 with broadcast
        || a == 0
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (18..20).contains(&b))
        || a >= 240;
    !special
}

/// Only global unicast (`2000::/3`), without what embeds other addresses or is not routed. NAT64 (`64:ff9b::/96`) is judged by the address
/// in it, since it is how hosts without IPv4 reach IPv4.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let embedded = || Ipv4Addr::from(u32::from(segments[6]) << 16 | u32::from(segments[7]));
    if segments[..6] == [0x64, 0xff9b, 0, 0, 0, 0] {
        return is_public_v4(embedded());
    }
    let global = segments[0] & 0xe000 == 0x2000;
    let special = matches!(segments, [0x2001, 0..0x200 | 0xdb8, ..] | [0x2002, ..] | [0x3fff, 0..0x1000, ..]);
    global && !special
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_are_not_of_the_public_internet_are_known() {
        for text in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "::127.0.0.1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "100::1",
            "3fff::1",
        ] {
            assert!(!is_public(text.parse().unwrap()), "{text}");
        }
        for text in [
            "8.8.8.8",
            "100.63.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "2606:4700::1111",
            "2001:4860:4860::8888",
            "64:ff9b::808:808",
        ] {
            assert!(is_public(text.parse().unwrap()), "{text}");
        }
    }
}
