//! Members of IAM policies: those rolecall may write, and how spellings are compared.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A member of a policy, folded for comparison. The values of `user:`, `group:`, `serviceAccount:` and `domain:` (also
/// after `deleted:`) compare without regard to case, everything else byte for byte. Never sent to Google.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct MemberKey(Arc<str>);

impl MemberKey {
    /// Folds a member as it is in a policy.
    #[must_use]
    pub(crate) fn of(member: &str) -> Self {
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
    pub(crate) fn as_str(&self) -> &str {
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

/// Why an attribute of a user or group is not a principal that rolecall writes. The condition reason is
/// `PrincipalInvalid`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PrincipalError {
    /// The user has no value at the configured attribute.
    #[error("the attribute has no value")]
    Missing,
    /// Not an address that a Google account can have: see [`Principal::google_account`].
    #[error(
        "the value is not the address of a Google account: before the one `@`, up to 64 letters, digits and . _ - + ' in ASCII, \
         no period at an end or beside another"
    )]
    NotAnEmail,
    /// The domain is not one of `allowedDomains`.
    #[error("the domain is not in allowedDomains")]
    DomainNotAllowed,
}

/// A member that rolecall may write: well formed and inside `allowedDomains`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Principal(Arc<str>);

impl From<Principal> for String {
    fn from(principal: Principal) -> Self {
        principal.0.as_ref().to_owned()
    }
}

/// Reads a stored principal, which was validated before it was stored.
impl TryFrom<String> for Principal {
    type Error = PrincipalError;

    fn try_from(text: String) -> Result<Self, PrincipalError> {
        let email = text.strip_prefix("user:").ok_or(PrincipalError::NotAnEmail)?;
        let domain = email.rsplit_once('@').map(|(_, domain)| domain.to_ascii_lowercase());
        Self::google_account(email, domain.as_slice())
    }
}

impl Principal {
    /// `user:<email>` for a Google account. The local part keeps its spelling, the domain is lower-cased and must be
    /// exactly one of `allowed_domains` (lower case).
    ///
    /// The local part follows the grammar of Google accounts, which is stricter than that of e-mail: 1 to 64 ASCII
    /// letters, digits and `. _ - + '`, with no period first, last or beside another. Google refuses a whole policy
    /// because of one address that it cannot parse, so an address outside of this grammar is never sent.
    ///
    /// # Errors
    /// [`PrincipalError`].
    pub(crate) fn google_account(email: &str, allowed_domains: &[String]) -> Result<Self, PrincipalError> {
        let (local, domain) = checked_email(email, allowed_domains)?;
        Ok(Self(format!("user:{local}@{domain}").into()))
    }

    /// The member text sent to Google.
    #[must_use]
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The folded form. It shares the text where folding changes nothing.
    #[must_use]
    pub(crate) fn key(&self) -> MemberKey {
        if self.0.bytes().any(|byte| byte.is_ascii_uppercase()) {
            MemberKey::of(&self.0)
        } else {
            MemberKey(self.0.clone())
        }
    }
}

fn checked_email<'a>(email: &'a str, allowed_domains: &[String]) -> Result<(&'a str, String), PrincipalError> {
    if email.is_empty() {
        return Err(PrincipalError::Missing);
    }
    let (local, domain) = email.split_once('@').ok_or(PrincipalError::NotAnEmail)?;
    if !is_local_part(local) || domain.is_empty() || domain.contains('@') || email.len() > 254 {
        return Err(PrincipalError::NotAnEmail);
    }
    let domain = domain.to_ascii_lowercase();
    if allowed_domains.contains(&domain) { Ok((local, domain)) } else { Err(PrincipalError::DomainNotAllowed) }
}

/// Longest local part of an address (RFC 5321, 4.5.3.1.1).
const LOCAL_PART: usize = 64;

fn is_local_part(local: &str) -> bool {
    let atom = |atom: &str| {
        !atom.is_empty() && atom.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'+' | b'\''))
    };
    local.len() <= LOCAL_PART && local.split('.').all(atom)
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn account(email: &str) -> Result<Principal, PrincipalError> {
        Principal::google_account(email, &["example.com".to_owned()])
    }

    #[test]
    fn addresses_that_google_accounts_have_are_principals() {
        for email in ["a@example.com", "first.last@example.com", "o'brien-smith_2+tag@Example.COM", "007@example.com"] {
            let principal = account(email).unwrap();
            assert!(principal.as_str().starts_with("user:") && principal.as_str().ends_with("@example.com"), "{email}");
        }
        assert!(account(&format!("{}@example.com", "a".repeat(64))).is_ok());
    }

    #[test]
    fn odd_local_parts_are_no_principals() {
        for email in [
            "x<y@example.com",
            "x>y@example.com",
            "x[y]@example.com",
            "\"x\"@example.com",
            "\"x y\"@example.com",
            "x y@example.com",
            ".x@example.com",
            "x.@example.com",
            "x..y@example.com",
            "@example.com",
            "x@@example.com",
            "x@y@example.com",
            "x/y@example.com",
            "x?y@example.com",
            "x#y@example.com",
            "x%y@example.com",
            "x*@example.com",
            "x,y@example.com",
            "x:y@example.com",
            "x;y@example.com",
            "x\\y@example.com",
            "(x)@example.com",
            "x|y@example.com",
            "x`y@example.com",
            "x{y}@example.com",
            "x\ny@example.com",
            "x\u{0}@example.com",
            "jos\u{e9}@example.com",
            "x\u{200b}@example.com",
            "x=y@example.com",
        ] {
            assert_eq!(account(email), Err(PrincipalError::NotAnEmail), "{email:?}");
        }
        assert_eq!(account(&format!("{}@example.com", "a".repeat(65))), Err(PrincipalError::NotAnEmail));
        assert_eq!(account("x@example.com.evil"), Err(PrincipalError::DomainNotAllowed));
        assert_eq!(account(""), Err(PrincipalError::Missing));
    }

    proptest! {
        #[test]
        fn what_is_a_principal_has_one_at_sign_and_nothing_that_a_policy_or_path_reads_otherwise(email: String) {
            if let Ok(principal) = account(&format!("{email}@example.com")) {
                let value = principal.as_str().strip_prefix("user:").unwrap();
                prop_assert_eq!(value.matches('@').count(), 1);
                let read_otherwise = value.bytes().any(|b| !b.is_ascii_graphic() || b"<>()[]{}\\\",;:/?#%*|`=&^~!$".contains(&b));
                prop_assert!(!read_otherwise, "{value}");
            }
        }
    }
}
