//! `v1` Secrets in a folder: bearer tokens. Values are never shown, not even in the text of a problem.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use super::check::{Check, Finding, join, shown};
use super::object::{finding, metadata_schema, names, only_fields};
use super::yaml::{Content, Node};
use crate::api::SecretKey;
use crate::model::{Kind, Reason};

/// Smallest number of characters of a bearer token. With 32 characters of any common alphabet it cannot be guessed over
/// a network.
const TOKEN_MIN: usize = 32;

/// The data of a Secret.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct SecretData {
    /// The namespace; none when the manifest has none, which means the operator's own.
    pub(crate) namespace: Option<String>,
    /// The name.
    pub(crate) name: String,
    /// The values, decoded.
    pub(crate) data: BTreeMap<String, Vec<u8>>,
}

impl fmt::Debug for SecretData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<_> = self.data.keys().collect();
        f.debug_struct("SecretData")
            .field("namespace", &self.namespace)
            .field("name", &self.name)
            .field("keys", &keys)
            .finish_non_exhaustive()
    }
}

/// Why a Secret has no usable token. The reasons are those of the condition `TokensValid`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenError {
    /// The Secret has neither key.
    #[error("the Secret has neither the key token nor tokenSHA256; add one")]
    KeyNotFound,
    /// The Secret lacks a key of an OAuth 2.0 client.
    #[error("the Secret lacks the key clientId or clientSecret; add it")]
    ClientKeyNotFound,
    /// The value is empty, or contains white space or control characters.
    #[error("the value is empty or has white space inside; write it as one line")]
    InvalidToken,
    /// The token or client secret has fewer than 32 characters.
    #[error("the token or client secret has fewer than 32 characters; make one with `openssl rand -hex 32`")]
    TooShort,
    /// The value is not a SHA-256.
    #[error(
        "tokenSHA256 is not 64 hexadecimal digits; write the output of sha256sum over the token without a line end"
    )]
    InvalidHash,
}

impl TokenError {
    /// The stable word.
    #[must_use]
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::KeyNotFound | Self::ClientKeyNotFound => Reason::TokenKeyNotFound.word(),
            Self::TooShort => Reason::TokenWeak.word(),
            Self::InvalidToken | Self::InvalidHash => Reason::TokenInvalid.word(),
        }
    }
}

impl SecretData {
    /// The SHA-256 of the bearer token under `key`, or under the other key when only that one exists. A line end after
    /// the value is not part of it. The length of a token cannot be checked if only its hash is given.
    ///
    /// # Errors
    /// [`TokenError`].
    pub(crate) fn token_sha256(&self, key: SecretKey) -> Result<[u8; 32], TokenError> {
        let other = match key {
            SecretKey::Token => SecretKey::TokenSha256,
            SecretKey::TokenSha256 => SecretKey::Token,
        };
        let (key, value) = [key, other]
            .into_iter()
            .find_map(|key| Some((key, self.data.get(key.as_str())?)))
            .ok_or(TokenError::KeyNotFound)?;
        let value = value.trim_ascii();
        match key {
            SecretKey::Token if value.is_empty() || !value.iter().all(u8::is_ascii_graphic) => {
                Err(TokenError::InvalidToken)
            }
            SecretKey::Token if value.len() < TOKEN_MIN => Err(TokenError::TooShort),
            SecretKey::Token => Ok(Sha256::digest(value).into()),
            SecretKey::TokenSha256 => from_hex(value).ok_or(TokenError::InvalidHash),
        }
    }

    /// The id and the secret of an OAuth 2.0 client. A line end after a value is not part of it.
    ///
    /// # Errors
    /// [`TokenError`].
    pub(crate) fn client(&self) -> Result<(&[u8], &[u8]), TokenError> {
        let value = |key: &str| {
            let value = self.data.get(key).ok_or(TokenError::ClientKeyNotFound)?.trim_ascii();
            let is_one_word = !value.is_empty() && value.iter().all(u8::is_ascii_graphic);
            if is_one_word { Ok(value) } else { Err(TokenError::InvalidToken) }
        };
        let (id, secret) = (value("clientId")?, value("clientSecret")?);
        if secret.len() < TOKEN_MIN { Err(TokenError::TooShort) } else { Ok((id, secret)) }
    }
}

fn from_hex(text: &[u8]) -> Option<[u8; 32]> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut bytes = [0; 32];
    if text.len() != 64 {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

pub(super) fn read(node: &Node, mut found: Vec<Finding>) -> Result<SecretData, Vec<Finding>> {
    only_fields(node, &["apiVersion", "kind", "metadata", "type", "immutable", "data", "stringData"], &mut found);
    match (Check::compile(&metadata_schema()), node.get("metadata")) {
        (Ok(check), Some(metadata)) => check.check(metadata, "metadata", &mut found),
        (Err(error), _) => found.push(finding(node.place, "", "SchemaUnusable", error.to_string())),
        (_, None) => {
            found.push(finding(node.place, "metadata", "MissingField", "required and missing".to_owned()));
        }
    }
    // The namespace is optional, because Secrets are read from one namespace only.
    if node.get("metadata").is_some_and(|metadata| metadata.get("namespace").is_some()) {
        names(node, Kind::Secret, true, &mut found);
    }
    let mut data = BTreeMap::new();
    for field in ["data", "stringData"] {
        let entries = match node.get(field).map(|values| (values, &values.content)) {
            None => continue,
            Some((values, _)) if values.is_null() => continue,
            Some((_, Content::Map(entries))) => entries,
            Some((values, _)) => {
                found.push(finding(values.place, field, "WrongType", "must be a map of texts".to_owned()));
                continue;
            }
        };
        for (key, value) in entries {
            let path = join(field, &shown(&key.text));
            let decoded = match (value.as_str(), field) {
                (Some(text), "stringData") => Ok(text.as_bytes().to_vec()),
                (Some(text), _) => {
                    let text: String = text.split_ascii_whitespace().collect();
                    STANDARD.decode(text).map_err(|_| ("InvalidBase64", "is not base64; use stringData for plain text"))
                }
                (None, _) => Err(("WrongType", "must be a text; write it in quotes")),
            };
            match decoded {
                Ok(bytes) => {
                    data.insert(key.text.clone(), bytes);
                }
                Err((reason, message)) => found.push(finding(value.place, &path, reason, message.to_owned())),
            }
        }
    }
    let text = |field: &str| node.get("metadata")?.get(field)?.as_str().map(str::to_owned);
    match text("name") {
        Some(name) if found.is_empty() => Ok(SecretData { namespace: text("namespace"), name, data }),
        _ => {
            found.sort_by_key(|finding| (finding.place.line, finding.place.column));
            Err(found)
        }
    }
}
