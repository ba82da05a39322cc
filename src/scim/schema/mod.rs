//! The schemas as data (RFC 7643 §7, §8.7). Storage, comparison, discovery and writing all follow these tables.

mod tables;

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use super::bulk::MAX_BULK_OPERATIONS;
use super::filter::AttributePath;

pub(crate) use tables::{ENTERPRISE_ATTRIBUTES, GROUP_ATTRIBUTES, USER_ATTRIBUTES};

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

/// The resource types of the endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ResourceType {
    /// `/Users`
    User,
    /// `/Groups`
    Group,
}

/// The attribute that a path leads to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Resolved {
    /// The URN of the extension the attribute belongs to, if it is not a core attribute.
    pub(crate) extension: Option<&'static str>,
    /// The attribute.
    pub(crate) attribute: &'static Attribute,
    /// Its sub-attribute, if one is named.
    pub(crate) sub: Option<&'static Attribute>,
}

impl ResourceType {
    /// All types.
    pub(crate) const ALL: [Self; 2] = [Self::User, Self::Group];

    /// The name, such as `User`.
    #[must_use]
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::User => "User",
            Self::Group => "Group",
        }
    }

    /// The endpoint, such as `/Users`.
    #[must_use]
    pub(crate) fn endpoint(self) -> &'static str {
        match self {
            Self::User => "/Users",
            Self::Group => "/Groups",
        }
    }

    /// The URN of the core schema.
    #[must_use]
    pub(crate) fn urn(self) -> &'static str {
        match self {
            Self::User => USER_URN,
            Self::Group => GROUP_URN,
        }
    }

    /// The attributes of the core schema, without the common ones.
    #[must_use]
    pub(crate) fn attributes(self) -> &'static [Attribute] {
        match self {
            Self::User => USER_ATTRIBUTES,
            Self::Group => GROUP_ATTRIBUTES,
        }
    }

    /// The extensions: URN and attributes.
    #[must_use]
    pub(crate) fn extensions(self) -> &'static [(&'static str, &'static [Attribute])] {
        match self {
            Self::User => &[(ENTERPRISE_URN, ENTERPRISE_ATTRIBUTES)],
            Self::Group => &[],
        }
    }

    /// The extension with this URN, in any case. URNs of SCIM 1.x count as those of their successors.
    #[must_use]
    pub(crate) fn extension(self, urn: &str) -> Option<(&'static str, &'static [Attribute])> {
        let urn = if is_legacy_enterprise(urn) { ENTERPRISE_URN } else { urn };
        self.extensions().iter().copied().find(|(known, _)| known.eq_ignore_ascii_case(urn))
    }

    /// A core or common attribute by name, in any case.
    #[must_use]
    pub(crate) fn core_attribute(self, name: &str) -> Option<&'static Attribute> {
        tables::COMMON_ATTRIBUTES
            .iter()
            .chain(self.attributes())
            .find(|attribute| attribute.name.eq_ignore_ascii_case(name))
    }

    /// The path with the URN of a schema of this type in front, where it begins with one: that tells where the URN ends,
    /// whatever colons and dots are in it, and also when a dot is behind it (`URN.userName`).
    #[must_use]
    pub(crate) fn normalized(self, path: &AttributePath) -> Cow<'_, AttributePath> {
        if path.schema.is_none() {
            return Cow::Borrowed(path);
        }
        let text = path.to_string();
        let known = std::iter::once(self.urn()).chain(self.extensions().iter().map(|(urn, _)| *urn));
        let known = known.chain(LEGACY_ENTERPRISE.iter().copied().filter(|urn| self.extension(urn).is_some()));
        let longest = known.filter_map(|urn| Some((urn, names_behind(&text, urn)?))).max_by_key(|(urn, _)| urn.len());
        let Some((urn, names)) = longest else { return Cow::Borrowed(path) };
        let (name, sub) = match names.split_once('.') {
            Some((name, sub)) => (name, Some(sub.to_owned())),
            None => (names, None),
        };
        let schema = text.get(..urn.len()).map(str::to_owned);
        Cow::Owned(AttributePath { schema, name: name.to_owned(), sub })
    }

    /// Resolves a path. An extension's attribute is found without its URN too, because identity providers send
    /// `manager` that way.
    #[must_use]
    pub(crate) fn resolve(self, path: &AttributePath) -> Option<Resolved> {
        let path = &*self.normalized(path);
        let (extension, attribute) = match &path.schema {
            None => match self.core_attribute(&path.name) {
                Some(attribute) => (None, attribute),
                None => self.extensions().iter().find_map(|(urn, attributes)| {
                    attributes.iter().find(|a| a.name.eq_ignore_ascii_case(&path.name)).map(|a| (Some(*urn), a))
                })?,
            },
            Some(schema) if schema.eq_ignore_ascii_case(self.urn()) => (None, self.core_attribute(&path.name)?),
            Some(schema) => {
                let (urn, attributes) = self.extension(schema)?;
                (Some(urn), attributes.iter().find(|a| a.name.eq_ignore_ascii_case(&path.name))?)
            }
        };
        let sub = match &path.sub {
            None => None,
            Some(sub) => Some(attribute.sub(sub)?),
        };
        Some(Resolved { extension, attribute, sub })
    }

    /// True when a URN in `schemas` belongs to this type.
    #[must_use]
    pub(crate) fn knows_schema(self, urn: &str) -> bool {
        urn.eq_ignore_ascii_case(self.urn())
            || self.extensions().iter().any(|(known, _)| known.eq_ignore_ascii_case(urn))
    }

    /// The resource of `/ResourceTypes` (RFC 7643 §6). `base` is the tenant's SCIM base URL.
    #[must_use]
    pub(crate) fn definition(self, base: &str) -> Value {
        let extensions: Vec<Value> =
            self.extensions().iter().map(|(urn, _)| json!({"schema": urn, "required": false})).collect();
        json!({
            "schemas": ["urn:ietf:params:scim:schemas:core:2.0:ResourceType"],
            "id": self.name(),
            "name": self.name(),
            "endpoint": self.endpoint(),
            "description": match self { Self::User => "User account", Self::Group => "Group of users" },
            "schema": self.urn(),
            "schemaExtensions": extensions,
            "meta": {"resourceType": "ResourceType", "location": format!("{base}/ResourceTypes/{}", self.name())},
        })
    }
}

/// URNs of SCIM 1.x for the enterprise extension.
const LEGACY_ENTERPRISE: [&str; 2] =
    ["urn:scim:schemas:extension:enterprise:1.0", "urn:scim:schemas:extension:enterprise:2.0"];

fn is_legacy_enterprise(urn: &str) -> bool {
    LEGACY_ENTERPRISE.iter().any(|legacy| legacy.eq_ignore_ascii_case(urn))
}

/// The names behind a URN and a colon or dot, if the text begins so and none of them belongs to a longer URN.
fn names_behind<'t>(text: &'t str, urn: &str) -> Option<&'t str> {
    let (head, tail) = (text.get(..urn.len())?, text.get(urn.len()..)?);
    let names = tail.strip_prefix([':', '.'])?;
    (head.eq_ignore_ascii_case(urn) && !names.is_empty() && !names.contains(':')).then_some(names)
}

/// The resources of `/Schemas` (RFC 7643 §7). `base` is the tenant's SCIM base URL. The common attributes belong to each
/// core schema (RFC 7643 §3.1), and clients that build their models from it look for them there.
#[must_use]
pub(crate) fn schemas(base: &str) -> Vec<Value> {
    let definition = |urn: &str, name: &str, description: &str, attributes: Value| {
        json!({
            "schemas": ["urn:ietf:params:scim:schemas:core:2.0:Schema"],
            "id": urn,
            "name": name,
            "description": description,
            "attributes": attributes,
            "meta": {"resourceType": "Schema", "location": format!("{base}/Schemas/{urn}")},
        })
    };
    let core = |attributes: &'static [Attribute]| definitions(tables::COMMON_ATTRIBUTES.iter().chain(attributes));
    let enterprise = definitions(ENTERPRISE_ATTRIBUTES);
    vec![
        definition(USER_URN, "User", "User account", core(USER_ATTRIBUTES)),
        definition(GROUP_URN, "Group", "Group of users", core(GROUP_ATTRIBUTES)),
        definition(ENTERPRISE_URN, "EnterpriseUser", "Enterprise extension of users", enterprise),
    ]
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
