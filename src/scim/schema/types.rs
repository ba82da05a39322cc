//! The resource types of the endpoint: users, groups, and those that a file describes.

use std::borrow::Cow;
use std::hash::{Hash, Hasher};

use serde_json::{Value, json};

use super::{
    Attribute, ENTERPRISE_ATTRIBUTES, ENTERPRISE_URN, GROUP_ATTRIBUTES, GROUP_URN, USER_ATTRIBUTES, USER_URN,
    definitions, tables,
};
use crate::scim::filter::AttributePath;

/// A type of resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ResourceType {
    /// `/Users`
    User,
    /// `/Groups`
    Group,
    /// A type that a file describes, or users or groups with further extensions.
    Registered(&'static TypeDefinition),
}

/// Where the resources of a type are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Home {
    /// With the users.
    Users,
    /// With the groups.
    Groups,
    /// With other resources, which access never depends on.
    Resources,
}

/// An extension of a type.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extension {
    /// The URN of its schema.
    pub(crate) urn: &'static str,
    /// Its attributes.
    pub(crate) attributes: &'static [Attribute],
    /// Whether each resource has it.
    pub(crate) required: bool,
}

/// A type that a file describes. Two with one name are the same.
#[derive(Debug)]
pub(crate) struct TypeDefinition {
    /// Where its resources are stored.
    pub(crate) home: Home,
    /// The name.
    pub(crate) name: &'static str,
    /// The endpoint, with its slash.
    pub(crate) endpoint: &'static str,
    /// The description.
    pub(crate) description: &'static str,
    /// The URN of the core schema.
    pub(crate) urn: &'static str,
    /// The attributes of the core schema.
    pub(crate) attributes: &'static [Attribute],
    /// The extensions.
    pub(crate) extensions: &'static [Extension],
}

impl PartialEq for TypeDefinition {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for TypeDefinition {}

impl Hash for TypeDefinition {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

/// A schema, as `/Schemas` shows it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SchemaDefinition {
    /// The URN.
    pub(crate) urn: &'static str,
    /// The name.
    pub(crate) name: &'static str,
    /// The description.
    pub(crate) description: &'static str,
    /// The attributes.
    pub(crate) attributes: &'static [Attribute],
    /// Whether the common attributes are shown too. They belong to each core schema (RFC 7643 §3.1), and clients that
    /// build their models from it look for them there.
    pub(crate) common: bool,
}

/// The resource types that are served, and their schemas.
#[derive(Debug, Clone)]
pub(crate) struct ResourceTypes {
    /// Users.
    pub(crate) user: ResourceType,
    /// Groups.
    pub(crate) group: ResourceType,
    /// The others.
    pub(crate) others: Vec<ResourceType>,
    /// The schemas that are not built in.
    pub(crate) schemas: Vec<SchemaDefinition>,
}

impl ResourceTypes {
    /// True when there is more than what is built in.
    pub(crate) fn has_more(&self) -> bool {
        !self.others.is_empty() || !self.schemas.is_empty()
    }
}

impl Default for ResourceTypes {
    fn default() -> Self {
        Self { user: ResourceType::User, group: ResourceType::Group, others: Vec::new(), schemas: Vec::new() }
    }
}

impl ResourceTypes {
    /// All types.
    #[must_use]
    pub(crate) fn all(&self) -> Vec<ResourceType> {
        [self.user, self.group].into_iter().chain(self.others.iter().copied()).collect()
    }

    /// The resources of `/Schemas` (RFC 7643 §7). `base` is the tenant's SCIM base URL.
    #[must_use]
    pub(crate) fn schemas(&self, base: &str) -> Vec<Value> {
        let core =
            |urn, name, description, attributes| SchemaDefinition { urn, name, description, attributes, common: true };
        let built_in = [
            core(USER_URN, "User", "User account", USER_ATTRIBUTES),
            core(GROUP_URN, "Group", "Group of users", GROUP_ATTRIBUTES),
            SchemaDefinition {
                urn: ENTERPRISE_URN,
                name: "EnterpriseUser",
                description: "Enterprise extension of users",
                attributes: ENTERPRISE_ATTRIBUTES,
                common: false,
            },
        ];
        let is_core = |urn: &str| self.others.iter().any(|of| of.urn() == urn);
        let others = self.schemas.iter().map(|schema| SchemaDefinition { common: is_core(schema.urn), ..*schema });
        built_in.into_iter().chain(others).map(|schema| schema.document(base)).collect()
    }
}

impl SchemaDefinition {
    fn document(&self, base: &str) -> Value {
        let common: &[Attribute] = if self.common { tables::COMMON_ATTRIBUTES } else { &[] };
        json!({
            "schemas": ["urn:ietf:params:scim:schemas:core:2.0:Schema"],
            "id": self.urn,
            "name": self.name,
            "description": self.description,
            "attributes": definitions(common.iter().chain(self.attributes)),
            "meta": {"resourceType": "Schema", "location": format!("{base}/Schemas/{}", self.urn)},
        })
    }
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

impl Extension {
    /// The attribute of this name, in any case.
    #[must_use]
    pub(crate) fn attribute(&self, name: &str) -> Option<&'static Attribute> {
        self.attributes.iter().find(|attribute| attribute.name.eq_ignore_ascii_case(name))
    }
}

impl ResourceType {
    /// The types that are built in.
    pub(crate) const ALL: [Self; 2] = [Self::User, Self::Group];

    /// The name, such as `User`.
    #[must_use]
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::User => "User",
            Self::Group => "Group",
            Self::Registered(definition) => definition.name,
        }
    }

    /// The endpoint, such as `/Users`.
    #[must_use]
    pub(crate) fn endpoint(self) -> &'static str {
        match self {
            Self::User => "/Users",
            Self::Group => "/Groups",
            Self::Registered(definition) => definition.endpoint,
        }
    }

    /// The URN of the core schema.
    #[must_use]
    pub(crate) fn urn(self) -> &'static str {
        match self {
            Self::User => USER_URN,
            Self::Group => GROUP_URN,
            Self::Registered(definition) => definition.urn,
        }
    }

    /// The attributes of the core schema, without the common ones.
    #[must_use]
    pub(crate) fn attributes(self) -> &'static [Attribute] {
        match self {
            Self::User => USER_ATTRIBUTES,
            Self::Group => GROUP_ATTRIBUTES,
            Self::Registered(definition) => definition.attributes,
        }
    }

    /// The description.
    #[must_use]
    pub(crate) fn description(self) -> &'static str {
        match self {
            Self::User => "User account",
            Self::Group => "Group of users",
            Self::Registered(definition) => definition.description,
        }
    }

    /// Where the resources are stored.
    #[must_use]
    pub(crate) fn home(self) -> Home {
        match self {
            Self::User => Home::Users,
            Self::Group => Home::Groups,
            Self::Registered(definition) => definition.home,
        }
    }

    /// The extensions.
    #[must_use]
    pub(crate) fn extensions(self) -> &'static [Extension] {
        match self {
            Self::User => &[Extension { urn: ENTERPRISE_URN, attributes: ENTERPRISE_ATTRIBUTES, required: false }],
            Self::Group => &[],
            Self::Registered(definition) => definition.extensions,
        }
    }

    /// The extension with this URN, in any case. URNs of SCIM 1.x count as those of their successors.
    #[must_use]
    pub(crate) fn extension(self, urn: &str) -> Option<&'static Extension> {
        let urn = if is_legacy_enterprise(urn) { ENTERPRISE_URN } else { urn };
        self.extensions().iter().find(|known| known.urn.eq_ignore_ascii_case(urn))
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
        let known = std::iter::once(self.urn()).chain(self.extensions().iter().map(|extension| extension.urn));
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

    /// Resolves a path. An attribute of the enterprise extension is found without its URN too, because identity providers
    /// send `manager` that way.
    #[must_use]
    pub(crate) fn resolve(self, path: &AttributePath) -> Option<Resolved> {
        let path = &*self.normalized(path);
        let (extension, attribute) = match &path.schema {
            None => match self.core_attribute(&path.name) {
                Some(attribute) => (None, attribute),
                None => self
                    .extension(ENTERPRISE_URN)
                    .and_then(|found| Some((Some(found.urn), found.attribute(&path.name)?)))?,
            },
            Some(schema) if schema.eq_ignore_ascii_case(self.urn()) => (None, self.core_attribute(&path.name)?),
            Some(schema) => {
                let found = self.extension(schema)?;
                (Some(found.urn), found.attribute(&path.name)?)
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
            || self.extensions().iter().any(|known| known.urn.eq_ignore_ascii_case(urn))
    }

    /// The resource of `/ResourceTypes` (RFC 7643 §6). `base` is the tenant's SCIM base URL.
    #[must_use]
    pub(crate) fn definition(self, base: &str) -> Value {
        let extensions: Vec<Value> =
            self.extensions().iter().map(|one| json!({"schema": one.urn, "required": one.required})).collect();
        json!({
            "schemas": ["urn:ietf:params:scim:schemas:core:2.0:ResourceType"],
            "id": self.name(),
            "name": self.name(),
            "endpoint": self.endpoint(),
            "description": self.description(),
            "schema": self.urn(),
            "schemaExtensions": extensions,
            "meta": {"resourceType": "ResourceType", "location": format!("{base}/ResourceTypes/{}", self.name())},
        })
    }
}

/// URNs of SCIM 1.x for the enterprise extension.
const LEGACY_ENTERPRISE: [&str; 2] =
    ["urn:scim:schemas:extension:enterprise:1.0", "urn:scim:schemas:extension:enterprise:2.0"];

pub(super) fn is_legacy_enterprise(urn: &str) -> bool {
    LEGACY_ENTERPRISE.iter().any(|legacy| legacy.eq_ignore_ascii_case(urn))
}

/// The names behind a URN and a colon or dot, if the text begins so and none of them belongs to a longer URN.
fn names_behind<'t>(text: &'t str, urn: &str) -> Option<&'t str> {
    let (head, tail) = (text.get(..urn.len())?, text.get(urn.len()..)?);
    let names = tail.strip_prefix([':', '.'])?;
    (head.eq_ignore_ascii_case(urn) && !names.is_empty() && !names.contains(':')).then_some(names)
}
