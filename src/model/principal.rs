//! Members of IAM policies: what rolecall may write, and how spellings are compared.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A member of a policy folded for comparison: the values of `user:`, `group:`, `serviceAccount:` and `domain:` (also
/// behind `deleted:`) compare without regard to case, everything else byte for byte. Never sent to Google.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MemberKey(Arc<str>);

impl MemberKey {
    /// Folds a member as read from, or written to, a policy.
    #[must_use]
    pub fn of(member: &str) -> Self {
        let (deleted, rest) = match member.strip_prefix("deleted:") {
            Some(rest) => ("deleted:", rest),
            None => ("", member),
        };
        match rest.split_once(':') {
            Some((kind @ ("user" | "group" | "serviceAccount" | "domain"), value)) => {
                Self(format!("{deleted}{kind}:{}", value.to_ascii_lowercase()).into())
            }
            _ => Self(member.into()),
        }
    }

    /// The folded text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MemberKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for MemberKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// Why an attribute of a user or group is not a principal that rolecall writes. The reason word is `PrincipalInvalid`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PrincipalError {
    /// The user has no value at the configured attribute.
    #[error("the attribute has no value")]
    Missing,
    /// Not an e-mail address of the form that is written: one `@`, printable ASCII, none of `/ ? # % * , :` or space.
    #[error("the value is not an e-mail address with one `@`, of printable ASCII without / ? # % * , : or space")]
    NotAnEmail,
    /// The domain is not one of `allowedDomains`.
    #[error("the domain is not in allowedDomains")]
    DomainNotAllowed,
}

/// A member that rolecall itself may write: well formed and inside `allowedDomains`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Principal(Arc<str>);

impl Principal {
    /// `user:<email>` for a Google account. The local part keeps its spelling, the domain is lower-cased and must be
    /// exactly one of `allowed_domains` (lower case).
    ///
    /// # Errors
    /// [`PrincipalError`].
    pub fn google_account(email: &str, allowed_domains: &[String]) -> Result<Self, PrincipalError> {
        let (local, domain) = checked_email(email, allowed_domains)?;
        Ok(Self(format!("user:{local}@{domain}").into()))
    }

    /// The member text as it is sent to Google.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The folded form.
    #[must_use]
    pub fn key(&self) -> MemberKey {
        MemberKey::of(&self.0)
    }
}

fn checked_email<'a>(email: &'a str, allowed_domains: &[String]) -> Result<(&'a str, String), PrincipalError> {
    if email.is_empty() {
        return Err(PrincipalError::Missing);
    }
    let printable = email.bytes().all(|b| b.is_ascii_graphic() && !b"/?#%*,:".contains(&b));
    let (local, domain) = email.split_once('@').ok_or(PrincipalError::NotAnEmail)?;
    if !printable || local.is_empty() || domain.is_empty() || domain.contains('@') || email.len() > 254 {
        return Err(PrincipalError::NotAnEmail);
    }
    let domain = domain.to_ascii_lowercase();
    if allowed_domains.contains(&domain) { Ok((local, domain)) } else { Err(PrincipalError::DomainNotAllowed) }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}
