//! Callers and their permissions.

use std::collections::HashMap;

use sha2::{Digest, Sha256};

use crate::error::ApiError;
use crate::etag;

/// Tokens and permissions. By default no token is required and everybody has every permission.
#[derive(Debug, Default)]
pub(crate) struct Callers {
    pub(crate) require_token: bool,
    pub(crate) tokens: HashMap<String, Token>,
    /// Principal → permissions, with `*` at the end as wildcard. A principal that is not listed has every permission.
    pub(crate) permissions: HashMap<String, Vec<String>>,
}

/// An access token.
#[derive(Debug, Clone)]
pub(crate) struct Token {
    pub(crate) principal: String,
    /// Expiry in microseconds since the epoch; none: never.
    pub(crate) expires: Option<u64>,
}

/// Largest number of stored tokens; the one that expires first is dropped.
const MAX_TOKENS: usize = 10_000;

impl Callers {
    /// Issues a token for a principal.
    pub(crate) fn issue(&mut self, principal: &str, expires: u64) -> String {
        if self.tokens.len() >= MAX_TOKENS
            && let Some(oldest) = self
                .tokens
                .iter()
                .filter_map(|(token, known)| known.expires.map(|expires| (expires, token)))
                .min()
                .map(|(_, token)| token.clone())
        {
            self.tokens.remove(&oldest);
        }
        let token = format!("ya29.emulated-{}", uuid::Uuid::new_v4().simple());
        self.tokens.insert(token.clone(), Token { principal: principal.to_owned(), expires: Some(expires) });
        token
    }

    /// The principal of a token, or an error when tokens are required and this one is not valid.
    pub(crate) fn identify(&self, bearer: Option<&str>, now: u64) -> Result<String, ApiError> {
        let known = bearer.and_then(|token| self.tokens.get(token));
        let good = known.filter(|token| token.expires.is_none_or(|expires| expires > now));
        match (good, bearer) {
            (Some(token), _) => Ok(token.principal.clone()),
            (None, _) if self.require_token => Err(ApiError::new(
                401,
                "UNAUTHENTICATED",
                "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other valid authentication credential. See https://developers.google.com/identity/sign-in/web/devconsole-project.",
            )),
            (None, Some(_)) if known.is_some() => Err(ApiError::new(
                401,
                "UNAUTHENTICATED",
                "Request had invalid authentication credentials. The access token has expired.",
            )),
            (None, Some(token)) => Ok(unknown(token)),
            (None, None) => Ok("anonymous".to_owned()),
        }
    }

    /// True when the principal has the permission; none when the principal is not listed.
    pub(crate) fn holds(&self, principal: &str, permission: &str) -> Option<bool> {
        self.permissions.get(principal).map(|held| {
            held.iter().any(|held| match held.strip_suffix('*') {
                Some(prefix) => permission.starts_with(prefix),
                None => held == permission,
            })
        })
    }

    /// Refuses a principal without the permission, with Cloud Run's text.
    pub(crate) fn authorise(&self, principal: &str, permission: &str, resource: &str) -> Result<(), ApiError> {
        if self.holds(principal, permission) == Some(false) {
            return Err(denied(permission, resource));
        }
        Ok(())
    }
}

/// The 403 for a missing permission.
pub(crate) fn denied(permission: &str, resource: &str) -> ApiError {
    ApiError::new(
        403,
        "PERMISSION_DENIED",
        format!("Permission '{permission}' denied on resource '{resource}' (or resource may not exist)."),
    )
}

/// The name of a token that was not issued here, derived from its hash.
fn unknown(token: &str) -> String {
    let digest = Sha256::digest(token.as_bytes());
    format!("token:{}", etag::hex(&digest[..4]))
}
