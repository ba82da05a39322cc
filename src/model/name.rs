//! Names of custom resources: DNS subdomains, as in Kubernetes.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Why a text is not a valid name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NameError {
    /// Not a DNS-1123 subdomain of at most 253 bytes.
    #[error("`{0}` is not a name: use lower-case letters, digits, `-` and `.`, at most 253 characters")]
    NotADnsSubdomain(String),
    /// Not of the form `namespace/name`, which a mapping key needs.
    #[error("`{0}` is not a mapping: write NAMESPACE/NAME")]
    NotAMappingKey(String),
}

fn is_dns_subdomain(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 253
        && text.split('.').all(|label| {
            !label.is_empty()
                && label.len() <= 63
                && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        })
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub(crate) struct $name(Arc<str>);

        impl $name {
            /// Checks that `text` is a DNS subdomain.
            ///
            /// # Errors
            /// [`NameError::NotADnsSubdomain`].
            pub(crate) fn new(text: &str) -> Result<Self, NameError> {
                if is_dns_subdomain(text) {
                    Ok(Self(text.into()))
                } else {
                    Err(NameError::NotADnsSubdomain(text.chars().take(260).collect()))
                }
            }

            /// The name as text.
            #[must_use]
            pub(crate) fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::new(&text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.as_ref().to_owned()
            }
        }
    };
}

name_type! {
    /// The name of an `IdentityProvider`, which is one SCIM tenant. Every row of the directory carries it.
    ProviderName
}
name_type! {
    /// The name of a `CloudRunTarget`.
    TargetName
}

/// The key of a `RoleMapping`: `namespace/name`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct MappingKey {
    namespace: Arc<str>,
    name: Arc<str>,
}

impl MappingKey {
    /// Checks both parts.
    ///
    /// # Errors
    /// [`NameError::NotADnsSubdomain`] for the part that is not one.
    pub(crate) fn new(namespace: &str, name: &str) -> Result<Self, NameError> {
        for part in [namespace, name] {
            if !is_dns_subdomain(part) {
                return Err(NameError::NotADnsSubdomain(part.chars().take(260).collect()));
            }
        }
        Ok(Self { namespace: namespace.into(), name: name.into() })
    }

    /// The namespace of the mapping.
    #[must_use]
    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The name within the namespace.
    #[must_use]
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for MappingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl fmt::Debug for MappingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl FromStr for MappingKey {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.split_once('/') {
            Some((namespace, name)) => Self::new(namespace, name),
            None => Err(NameError::NotAMappingKey(text.chars().take(260).collect())),
        }
    }
}

impl TryFrom<String> for MappingKey {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<MappingKey> for String {
    fn from(key: MappingKey) -> String {
        key.to_string()
    }
}
