//! The schemas as data (RFC 7643 §7, §8.7). Storage, comparison, discovery and writing all follow these tables.

mod registered;
mod tables;
mod types;

use serde_json::{Map, Value, json};

use super::bulk::MAX_BULK_OPERATIONS;

pub(crate) use registered::SchemaProblem;
pub(crate) use tables::{ENTERPRISE_ATTRIBUTES, GROUP_ATTRIBUTES, USER_ATTRIBUTES};
use types::is_legacy_enterprise;
pub(crate) use types::{Extension, Home, Resolved, ResourceType, ResourceTypes, SchemaDefinition, TypeDefinition};

/// The schema of users.
pub(crate) const USER_URN: &str = "urn:ietf:params:scim:schemas:core:2.0:User";
/// The schema of groups.
pub(crate) const GROUP_URN: &str = "urn:ietf:params:scim:schemas:core:2.0:Group";
/// The enterprise extension of users.
pub(crate) const ENTERPRISE_URN: &str = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User";
/// The schema of bulk requests.
pub(crate) const BULK_REQUEST_URN: &str = "urn:ietf:params:scim:api:messages:2.0:BulkRequest";
/// The schema of answers to bulk requests.
pub(crate) const BULK_RESPONSE_URN: &str = "urn:ietf:params:scim:api:messages:2.0:BulkResponse";
/// The schema of PATCH requests.
pub(crate) const PATCH_URN: &str = "urn:ietf:params:scim:api:messages:2.0:PatchOp";
/// The schema of answers to queries.
pub(crate) const LIST_URN: &str = "urn:ietf:params:scim:api:messages:2.0:ListResponse";
/// The schema of errors.
pub(crate) const ERROR_URN: &str = "urn:ietf:params:scim:api:messages:2.0:Error";

/// Seconds for which a cursor can be used (RFC 9865 §4).
pub(crate) const CURSOR_TIMEOUT: i64 = 3600;

/// The data types of RFC 7643 §2.3 that are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `string`
    String,
    /// `boolean`
    Boolean,
    /// `dateTime`
    DateTime,
    /// `reference`
    Reference,
    /// `binary`, base64 in JSON
    Binary,
    /// `integer`
    Integer,
    /// `decimal`
    Decimal,
    /// `complex`
    Complex,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Boolean => "boolean",
            Self::DateTime => "dateTime",
            Self::Reference => "reference",
            Self::Binary => "binary",
            Self::Integer => "integer",
            Self::Decimal => "decimal",
            Self::Complex => "complex",
        }
    }
}

/// Who may change an attribute (RFC 7643 §2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mutability {
    /// The client.
    ReadWrite,
    /// Only the server.
    ReadOnly,
    /// The client, once.
    Immutable,
    /// The client, and nobody reads it.
    WriteOnly,
}

impl Mutability {
    fn as_str(self) -> &'static str {
        match self {
            Self::ReadWrite => "readWrite",
            Self::ReadOnly => "readOnly",
            Self::Immutable => "immutable",
            Self::WriteOnly => "writeOnly",
        }
    }
}

/// When an answer contains an attribute (RFC 7643 §2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Returned {
    /// Whatever is asked for.
    Always,
    /// Unless it is excluded, or others are asked for.
    Default,
    /// Only when `attributes` names it.
    Request,
    /// In no case.
    Never,
}

impl Returned {
    fn as_str(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::Default => "default",
            Self::Request => "request",
            Self::Never => "never",
        }
    }
}

/// One attribute with its characteristics (RFC 7643 §2.2).
#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "the characteristics are those of RFC 7643 §2.2")]
pub(crate) struct Attribute {
    /// The name, spelled as in answers.
    pub(crate) name: &'static str,
    /// The data type.
    pub(crate) kind: Kind,
    /// `multiValued`
    pub(crate) multi: bool,
    /// `required`
    pub(crate) required: bool,
    /// `caseExact`
    pub(crate) case_exact: bool,
    /// `uniqueness: server`
    pub(crate) unique: bool,
    /// `mutability`
    pub(crate) mutability: Mutability,
    /// `returned`
    pub(crate) returned: Returned,
    /// Whether `/Schemas` lists it. An attribute that is not listed is accepted, stored and returned like others.
    pub(crate) advertised: bool,
    /// `canonicalValues`: suggestions, never a limit (RFC 7643 §7).
    pub(crate) canonical: &'static [&'static str],
    /// `referenceTypes`
    pub(crate) references: &'static [&'static str],
    /// `subAttributes`
    pub(crate) subs: &'static [Attribute],
    /// The description.
    pub(crate) description: &'static str,
}

impl Attribute {
    /// The sub-attribute of this name, in any case.
    #[must_use]
    pub(crate) fn sub(&self, name: &str) -> Option<&'static Attribute> {
        self.subs.iter().find(|sub| sub.name.eq_ignore_ascii_case(name))
    }

    /// The sub-attribute that a complex attribute means when none is named: its `value`.
    #[must_use]
    pub(crate) fn default_sub(&self) -> Option<&'static Attribute> {
        self.sub("value")
    }

    fn definition(&self) -> Value {
        let mut map = Map::new();
        map.insert("name".into(), json!(self.name));
        map.insert("type".into(), json!(self.kind.as_str()));
        map.insert("multiValued".into(), json!(self.multi));
        map.insert("description".into(), json!(self.description));
        map.insert("required".into(), json!(self.required));
        if !self.canonical.is_empty() {
            map.insert("canonicalValues".into(), json!(self.canonical));
        }
        if self.kind == Kind::Reference {
            map.insert("referenceTypes".into(), json!(self.references));
        }
        map.insert("caseExact".into(), json!(self.case_exact));
        map.insert("mutability".into(), json!(self.mutability.as_str()));
        map.insert("returned".into(), json!(self.returned.as_str()));
        map.insert("uniqueness".into(), json!(if self.unique { "server" } else { "none" }));
        if self.kind == Kind::Complex {
            map.insert("subAttributes".into(), definitions(self.subs));
        }
        Value::Object(map)
    }
}

fn definitions<'a>(attributes: impl IntoIterator<Item = &'a Attribute>) -> Value {
    attributes.into_iter().filter(|attribute| attribute.advertised).map(Attribute::definition).collect()
}

/// The document of `/ServiceProviderConfig` (RFC 7643 §5).
#[must_use]
pub(crate) fn service_provider_config(base: &str, max_payload: usize, max_results: u32) -> Value {
    json!({
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:ServiceProviderConfig"],
        "patch": {"supported": true},
        "bulk": {"supported": true, "maxOperations": MAX_BULK_OPERATIONS, "maxPayloadSize": max_payload},
        "filter": {"supported": true, "maxResults": max_results},
        "changePassword": {"supported": false},
        "sort": {"supported": true},
        "pagination": {
            "cursor": true,
            "index": true,
            "defaultPaginationMethod": "index",
            "defaultPageSize": max_results,
            "maxPageSize": max_results,
            "cursorTimeout": CURSOR_TIMEOUT,
        },
        "etag": {"supported": true},
        "authenticationSchemes": [{
            "type": "oauthbearertoken",
            "name": "Bearer token",
            "description": "A token of the IdentityProvider, in the Authorization header",
            "specUri": "https://www.rfc-editor.org/info/rfc6750",
            "primary": true,
        }],
        "meta": {"resourceType": "ServiceProviderConfig", "location": format!("{base}/ServiceProviderConfig")},
    })
}

/// A list answer (RFC 7644 §3.4.2).
#[must_use]
pub(crate) fn list_response(total: u64, start_index: u64, resources: &[Value]) -> Value {
    json!({
        "schemas": [LIST_URN],
        "totalResults": total,
        "startIndex": start_index,
        "itemsPerPage": resources.len(),
        "Resources": resources,
    })
}
