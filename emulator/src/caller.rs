//! Who calls, and what they may do.

use std::collections::HashMap;

use sha2::{Digest, Sha256};

use crate::error::ApiError;
use crate::etag;

/// Tokens and permissions. By default nobody needs a token and everybody may do everything.
#[derive(Debug, Default)]
pub(crate) struct Callers {
    pub(crate) require_token: bool,
    pub(crate) tokens: HashMap<String, Token>,
    /// Principal → permissions, with `*` at the end as wildcard. Who is not listed may do everything.
    pub(crate) permissions: HashMap<String, Vec<String>>,
}

/// An access token.
#[derive(Debug, Clone)]
pub(crate) struct Token {
    pub(crate) principal: String,
    /// Microseconds since the epoch; none: for ever.
    pub(crate) expires: Option<u64>,
}

/// The tokens kept at most; the oldest expiry goes first.
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

    /// The principal behind a token, or a refusal when tokens are required and this one is not good.
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

    /// Whether a principal holds a permission by the list; none when nothing is said about the principal.
    pub(crate) fn holds(&self, principal: &str, permission: &str) -> Option<bool> {
        self.permissions.get(principal).map(|held| {
            held.iter().any(|held| match held.strip_suffix('*') {
                Some(prefix) => permission.starts_with(prefix),
                None => held == permission,
            })
        })
    }

    /// Refuses a principal without the permission, in Cloud Run's words.
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

/// A token nobody issued here, named by its hash.
fn unknown(token: &str) -> String {
    let digest = Sha256::digest(token.as_bytes());
    format!("token:{}", etag::hex(&digest[..4]))
}
