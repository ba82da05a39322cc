//! Schemas and resource types from a file (RFC 7643 §6, §7), checked before anything is served.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value};

use super::{
    Attribute, ENTERPRISE_URN, Extension, GROUP_URN, Home, Kind, Mutability, ResourceType, ResourceTypes, Returned,
    SchemaDefinition, TypeDefinition, USER_URN, is_legacy_enterprise,
};
use crate::scim::error::shown;
use crate::scim::parse::is_urn;

/// Largest number of documents.
const MAX_DOCUMENTS: usize = 100;
/// Largest number of attributes of one schema, and of sub-attributes of one attribute.
const MAX_ATTRIBUTES: usize = 200;
/// Largest number of resource types.
const MAX_TYPES: usize = 20;
/// Longest URN, in bytes.
const MAX_URN: usize = 256;
/// Longest name and description, in bytes.
const MAX_TEXT: usize = 1024;

const SCHEMA: &str = "urn:ietf:params:scim:schemas:core:2.0:Schema";
const RESOURCE_TYPE: &str = "urn:ietf:params:scim:schemas:core:2.0:ResourceType";

/// Endpoints that are served already, without their slash.
const ENDPOINTS: [&str; 8] =
    ["Users", "Groups", "Schemas", "ResourceTypes", "ServiceProviderConfig", "Me", "Bulk", ".search"];

/// A mistake in a file of schemas: where, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SchemaProblem {
    /// The document and the place in it.
    pub(crate) place: String,
    /// What is wrong, and how to mend it.
    pub(crate) problem: String,
}

impl fmt::Display for SchemaProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.problem)
    }
}

/// Where a mistake is.
#[derive(Clone, Copy)]
enum At<'a> {
    Document(usize, &'a str),
    Inside(&'a At<'a>, &'a str),
    Item(&'a At<'a>, usize),
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Document(number, "") => write!(f, "document {number}"),
            Self::Document(number, name) => write!(f, "document {number} (`{}`)", shown(name)),
            Self::Inside(document @ Self::Document(..), name) => write!(f, "{document}, {name}"),
            Self::Inside(place, name) => write!(f, "{place}.{name}"),
            Self::Item(place, index) => write!(f, "{place}[{index}]"),
        }
    }
}

impl At<'_> {
    fn wrong(&self, problem: impl Into<String>) -> SchemaProblem {
        SchemaProblem { place: self.to_string(), problem: problem.into() }
    }
}

/// Lives as long as the process: schemas are read once, before anything is served, and are then used like those that are built in.
fn leaked(text: &str) -> &'static str {
    Box::leak(text.to_owned().into_boxed_str())
}

/// Members of an object, each of which has to be known.
struct Members<'v, 'a> {
    at: At<'a>,
    object: &'v Map<String, Value>,
}

impl<'v, 'a> Members<'v, 'a> {
    fn new(at: At<'a>, value: &'v Value, known: &[&str]) -> Result<Self, SchemaProblem> {
        let object = value.as_object().ok_or_else(|| at.wrong("must be an object"))?;
        match object.keys().find(|key| !known.contains(&key.as_str())) {
            Some(key) => {
                let known = known.join(", ");
                Err(at.wrong(format!("`{}` is no member of it; there are {known}", shown(key))))
            }
            None => Ok(Self { at, object }),
        }
    }

    fn text(&self, name: &str) -> Result<Option<&'v str>, SchemaProblem> {
        let at = At::Inside(&self.at, name);
        match self.object.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if text.len() <= MAX_TEXT => Ok(Some(text)),
            Some(Value::String(_)) => Err(at.wrong(format!("is longer than {MAX_TEXT} bytes"))),
            Some(_) => Err(at.wrong("must be a text")),
        }
    }

    fn required(&self, name: &str) -> Result<&'v str, SchemaProblem> {
        let text = self.text(name)?.filter(|text| !text.is_empty());
        text.ok_or_else(|| self.at.wrong(format!("`{name}` is missing")))
    }

    fn flag(&self, name: &str) -> Result<bool, SchemaProblem> {
        match self.object.get(name) {
            None | Some(Value::Null) => Ok(false),
            Some(Value::Bool(value)) => Ok(*value),
            Some(_) => Err(At::Inside(&self.at, name).wrong("must be true or false")),
        }
    }

    fn list(&self, name: &str) -> Result<&'v [Value], SchemaProblem> {
        match self.object.get(name) {
            None | Some(Value::Null) => Ok(&[]),
            Some(Value::Array(list)) => Ok(list),
            Some(_) => Err(At::Inside(&self.at, name).wrong("must be a list")),
        }
    }

    fn texts(&self, name: &str) -> Result<&'static [&'static str], SchemaProblem> {
        let at = At::Inside(&self.at, name);
        let texts = self.list(name)?.iter().map(|one| one.as_str().map(leaked));
        let texts: Option<Vec<&'static str>> = texts.collect();
        Ok(Vec::leak(texts.ok_or_else(|| at.wrong("must be a list of texts"))?))
    }

    /// The meaning of a word, if there is one.
    fn word<T: Copy>(&self, name: &str, words: &[(&str, T)]) -> Result<Option<T>, SchemaProblem> {
        let Some(given) = self.text(name)? else { return Ok(None) };
        let found = words.iter().find(|(word, _)| *word == given).map(|(_, meaning)| Some(*meaning));
        found.ok_or_else(|| {
            let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            At::Inside(&self.at, name).wrong(format!("`{}` is none of {}", shown(given), words.join(", ")))
        })
    }
}

const ATTRIBUTE: [&str; 12] = [
    "name",
    "type",
    "subAttributes",
    "multiValued",
    "description",
    "required",
    "canonicalValues",
    "caseExact",
    "mutability",
    "returned",
    "uniqueness",
    "referenceTypes",
];

fn is_name(name: &str) -> bool {
    name == "$ref"
        || name.starts_with(|first: char| first.is_ascii_alphabetic())
            && name.len() <= 256
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// One attribute. `inside`: of a complex one.
fn attribute(at: At<'_>, value: &Value, inside: bool) -> Result<Attribute, SchemaProblem> {
    let members = Members::new(at, value, &ATTRIBUTE)?;
    let name = members.required("name")?;
    if !is_name(name) {
        return Err(At::Inside(&at, "name").wrong(format!(
            "`{}` is no name of an attribute: a letter, then letters, digits, `-` and `_`",
            shown(name)
        )));
    }
    let kinds = [
        ("string", Kind::String),
        ("boolean", Kind::Boolean),
        ("decimal", Kind::Decimal),
        ("integer", Kind::Integer),
        ("dateTime", Kind::DateTime),
        ("reference", Kind::Reference),
        ("binary", Kind::Binary),
        ("complex", Kind::Complex),
    ];
    let kind = members.word("type", &kinds)?.unwrap_or(Kind::String);
    let given = members.list("subAttributes")?;
    if inside && kind == Kind::Complex {
        return Err(At::Inside(&at, "type")
            .wrong("a sub-attribute cannot be complex (RFC 7643 §2.3.8): make it an attribute of its own"));
    }
    if kind != Kind::Complex && !given.is_empty() {
        return Err(At::Inside(&at, "subAttributes").wrong("only an attribute of the type complex has some"));
    }
    if kind == Kind::Complex && given.is_empty() {
        return Err(at.wrong("an attribute of the type complex needs `subAttributes`"));
    }
    let subs: &'static [Attribute] = Vec::leak(attributes(At::Inside(&at, "subAttributes"), given, true)?);
    let mutability = [
        ("readWrite", Mutability::ReadWrite),
        ("readOnly", Mutability::ReadOnly),
        ("immutable", Mutability::Immutable),
        ("writeOnly", Mutability::WriteOnly),
    ];
    let returned = [
        ("default", Returned::Default),
        ("always", Returned::Always),
        ("request", Returned::Request),
        ("never", Returned::Never),
    ];
    let uniqueness = [("none", false), ("server", true), ("global", true)];
    let mutability = members.word("mutability", &mutability)?.unwrap_or(Mutability::ReadWrite);
    let unique = members.word("uniqueness", &uniqueness)?.unwrap_or(false);
    let new = Attribute {
        name: leaked(name),
        kind,
        multi: members.flag("multiValued")?,
        required: members.flag("required")?,
        case_exact: members.flag("caseExact")? || matches!(kind, Kind::Reference | Kind::Binary),
        unique,
        mutability,
        returned: members.word("returned", &returned)?.unwrap_or(Returned::Default),
        advertised: true,
        canonical: members.texts("canonicalValues")?,
        references: members.texts("referenceTypes")?,
        subs,
        description: leaked(members.text("description")?.unwrap_or_default()),
    };
    consistent(at, new, inside)
}

/// The attribute, if its characteristics can be kept together.
fn consistent(at: At<'_>, new: Attribute, inside: bool) -> Result<Attribute, SchemaProblem> {
    if new.multi && inside {
        return Err(At::Inside(&at, "multiValued")
            .wrong("a sub-attribute has a single value here: make it an attribute of its own, or write `false`"));
    }
    if new.unique && (inside || new.multi || matches!(new.kind, Kind::Complex | Kind::Boolean)) {
        return Err(At::Inside(&at, "uniqueness")
            .wrong("only an attribute of its own with a single simple value can be unique: write `none`"));
    }
    if new.required && matches!(new.mutability, Mutability::ReadOnly | Mutability::WriteOnly) {
        return Err(At::Inside(&at, "required")
            .wrong("what no client stores cannot be required: write `false`, or another `mutability`"));
    }
    let once = new.subs.iter().position(|sub| sub.mutability == Mutability::Immutable);
    if let Some(once) = once.filter(|_| new.multi) {
        return Err(At::Inside(&At::Item(&At::Inside(&at, "subAttributes"), once), "mutability").wrong(
            "an element of an attribute with several values can be replaced by another: write `readWrite`, or make the \
             attribute `immutable`",
        ));
    }
    Ok(new)
}

fn attributes(at: At<'_>, values: &[Value], inside: bool) -> Result<Vec<Attribute>, SchemaProblem> {
    if values.len() > MAX_ATTRIBUTES {
        return Err(at.wrong(format!("has more than {MAX_ATTRIBUTES} entries")));
    }
    let mut all: Vec<Attribute> = Vec::with_capacity(values.len());
    for (index, value) in values.iter().enumerate() {
        let at = At::Item(&at, index);
        let new = attribute(at, value, inside)?;
        if all.iter().any(|known| known.name.eq_ignore_ascii_case(new.name)) {
            return Err(at.wrong(format!("another one has the name `{}`; names have no case", new.name)));
        }
        all.push(new);
    }
    Ok(all)
}

/// A schema, and where it is.
struct Schema {
    number: usize,
    definition: SchemaDefinition,
    used: bool,
}

fn schema(number: usize, document: &Value) -> Result<Schema, SchemaProblem> {
    let at = At::Document(number, document["id"].as_str().unwrap_or_default());
    let members = Members::new(at, document, &["schemas", "id", "name", "description", "attributes", "meta"])?;
    let urn = members.required("id")?;
    let inside = At::Inside(&at, "id");
    let lower = urn.to_ascii_lowercase();
    if !is_urn(urn) || urn.ends_with(':') || urn.len() > MAX_URN {
        return Err(inside.wrong("is no URN of a schema, such as `urn:example:params:scim:schemas:core:2.0:Device`"));
    }
    let built_in = [USER_URN, GROUP_URN, ENTERPRISE_URN, SCHEMA, RESOURCE_TYPE];
    if built_in.iter().any(|known| known.eq_ignore_ascii_case(urn))
        || is_legacy_enterprise(urn)
        || lower.starts_with("urn:ietf:params:scim:api:")
        || lower == "urn:ietf:params:scim:schemas:core:2.0:serviceproviderconfig"
    {
        return Err(inside.wrong("is built in and cannot be described again: choose a URN of your own"));
    }
    let attributes = attributes(At::Inside(&at, "attributes"), members.list("attributes")?, false)?;
    if attributes.is_empty() {
        return Err(at.wrong("`attributes` is missing"));
    }
    let name = members.text("name")?.filter(|name| !name.is_empty());
    let definition = SchemaDefinition {
        urn: leaked(urn),
        name: leaked(name.unwrap_or_else(|| urn.rsplit(':').next().unwrap_or(urn))),
        description: leaked(members.text("description")?.unwrap_or_default()),
        attributes: Vec::leak(attributes),
        common: false,
    };
    Ok(Schema { number, definition, used: false })
}

/// What is read so far.
#[derive(Default)]
struct Reading {
    schemas: BTreeMap<String, Schema>,
    types: Vec<TypeDefinition>,
}

impl Reading {
    fn use_schema(&mut self, at: At<'_>, urn: &str) -> Result<SchemaDefinition, SchemaProblem> {
        match self.schemas.get_mut(&urn.to_ascii_lowercase()) {
            Some(schema) => {
                schema.used = true;
                Ok(schema.definition)
            }
            None => Err(at.wrong(format!("there is no schema `{}` in the file: add its document", shown(urn)))),
        }
    }

    fn extensions(&mut self, at: At<'_>, values: &[Value], home: Home) -> Result<Vec<Extension>, SchemaProblem> {
        let mut all: Vec<Extension> = Vec::new();
        for (index, value) in values.iter().enumerate() {
            let at = At::Item(&at, index);
            let members = Members::new(at, value, &["schema", "required"])?;
            let urn = members.required("schema")?;
            if home == Home::Users && urn.eq_ignore_ascii_case(ENTERPRISE_URN) {
                continue;
            }
            let schema = self.use_schema(At::Inside(&at, "schema"), urn)?;
            if all.iter().any(|known| known.urn == schema.urn) {
                return Err(at.wrong("this extension is listed twice"));
            }
            let unique = schema.attributes.iter().find(|attribute| attribute.unique);
            if let Some(unique) = unique.filter(|_| home != Home::Resources) {
                let name = unique.name;
                return Err(at.wrong(format!(
                    "`{name}` is unique, which is not checked in extensions of users and groups: write `uniqueness: none`"
                )));
            }
            let required = members.flag("required")?;
            if required && home != Home::Resources {
                return Err(At::Inside(&at, "required")
                    .wrong("identity providers create users and groups without it: write `false`"));
            }
            all.push(Extension { urn: schema.urn, attributes: schema.attributes, required });
        }
        Ok(all)
    }

    fn resource_type(&mut self, number: usize, document: &Value) -> Result<(), SchemaProblem> {
        let at = At::Document(number, document["name"].as_str().unwrap_or_default());
        let known = ["schemas", "id", "name", "description", "endpoint", "schema", "schemaExtensions", "meta"];
        let members = Members::new(at, document, &known)?;
        let name = members.required("name")?;
        if self.types.iter().any(|known| known.name.eq_ignore_ascii_case(name)) {
            return Err(At::Inside(&at, "name").wrong("another document describes this resource type"));
        }
        let built_in = [ResourceType::User, ResourceType::Group].into_iter();
        if let Some(of) = built_in.into_iter().find(|of| of.name().eq_ignore_ascii_case(name)) {
            return self.extended(at, &members, of);
        }
        if !is_name(name) || name == "$ref" || name.eq_ignore_ascii_case("Schema") {
            return Err(At::Inside(&at, "name").wrong(
                "is no name of a resource type: a letter, then letters, digits, `-` and `_`, such as `Device`",
            ));
        }
        let endpoint = members.required("endpoint")?;
        let inside = At::Inside(&at, "endpoint");
        let path = endpoint.strip_prefix('/').filter(|path| is_name(path) && *path != "$ref");
        let Some(path) = path else {
            return Err(inside.wrong("is no path of one segment, such as `/Devices`"));
        };
        let taken = self.types.iter().any(|known| known.endpoint.eq_ignore_ascii_case(endpoint));
        if taken || ENDPOINTS.iter().any(|known| known.eq_ignore_ascii_case(path)) {
            return Err(inside.wrong(format!("`{}` is served already: choose another path", shown(endpoint))));
        }
        let schema = self.use_schema(At::Inside(&at, "schema"), members.required("schema")?)?;
        let common = ["schemas", "id", "externalId", "meta"];
        if let Some(common) =
            schema.attributes.iter().find(|one| common.iter().any(|c| c.eq_ignore_ascii_case(one.name)))
        {
            return Err(At::Inside(&at, "schema").wrong(format!(
                "`{}` has the attribute `{}`, which every resource has (RFC 7643 §3.1): leave it out of the schema",
                schema.urn, common.name
            )));
        }
        let listed = members.list("schemaExtensions")?;
        let extensions = self.extensions(At::Inside(&at, "schemaExtensions"), listed, Home::Resources)?;
        if extensions.iter().any(|extension| extension.urn == schema.urn) {
            return Err(At::Inside(&at, "schemaExtensions").wrong("the schema of the type cannot extend it"));
        }
        self.types.push(TypeDefinition {
            home: Home::Resources,
            name: leaked(name),
            endpoint: leaked(endpoint),
            description: leaked(members.text("description")?.unwrap_or_default()),
            urn: schema.urn,
            attributes: schema.attributes,
            extensions: Vec::leak(extensions),
        });
        Ok(())
    }

    /// Users or groups with further extensions.
    fn extended(&mut self, at: At<'_>, members: &Members<'_, '_>, of: ResourceType) -> Result<(), SchemaProblem> {
        for (name, is) in [("endpoint", of.endpoint()), ("schema", of.urn())] {
            if members.text(name)?.is_some_and(|given| given != is) {
                return Err(At::Inside(&at, name)
                    .wrong(format!("that of {} is `{is}`; only its `schemaExtensions` can be added to", of.name())));
            }
        }
        let listed = members.list("schemaExtensions")?;
        let mut extensions = of.extensions().to_vec();
        extensions.extend(self.extensions(At::Inside(&at, "schemaExtensions"), listed, of.home())?);
        self.types.push(TypeDefinition {
            home: of.home(),
            name: of.name(),
            endpoint: of.endpoint(),
            description: of.description(),
            urn: of.urn(),
            attributes: of.attributes(),
            extensions: Vec::leak(extensions),
        });
        Ok(())
    }
}

/// The kind of a document, by its `schemas`.
fn is_of(document: &Value, urn: &str) -> bool {
    let listed = document["schemas"].as_array().into_iter().flatten();
    listed.filter_map(Value::as_str).any(|listed| listed.eq_ignore_ascii_case(urn))
}

impl ResourceTypes {
    /// The resource types that are built in, and those that the documents describe.
    ///
    /// # Errors
    /// The first mistake.
    pub(crate) fn registered(documents: &[Value]) -> Result<Self, SchemaProblem> {
        let problem = |number, text: &str| Err(At::Document(number, "").wrong(text));
        if documents.len() > MAX_DOCUMENTS {
            return problem(MAX_DOCUMENTS + 1, &format!("there are more than {MAX_DOCUMENTS} documents"));
        }
        let mut reading = Reading::default();
        for (number, document) in (1..).zip(documents) {
            if is_of(document, SCHEMA) {
                let new = schema(number, document)?;
                let key = new.definition.urn.to_ascii_lowercase();
                if let Some(known) = reading.schemas.get(&key) {
                    return problem(number, &format!("document {} describes the same schema", known.number));
                }
                reading.schemas.insert(key, new);
            } else if !is_of(document, RESOURCE_TYPE) {
                return problem(number, &format!("`schemas` lists neither `{SCHEMA}` nor `{RESOURCE_TYPE}`"));
            }
        }
        for (number, document) in (1..).zip(documents) {
            if is_of(document, RESOURCE_TYPE) && !is_of(document, SCHEMA) {
                reading.resource_type(number, document)?;
            }
        }
        if reading.types.len() > MAX_TYPES {
            return problem(documents.len(), &format!("there are more than {MAX_TYPES} resource types"));
        }
        if let Some(unused) = reading.schemas.values().find(|schema| !schema.used) {
            let at = At::Document(unused.number, unused.definition.urn);
            return Err(at.wrong("no resource type uses this schema: list it as `schema` or in `schemaExtensions`"));
        }
        let mut types = Self::default();
        for definition in reading.types {
            let home = definition.home;
            let of = ResourceType::Registered(Box::leak(Box::new(definition)));
            match home {
                Home::Users => types.user = of,
                Home::Groups => types.group = of,
                Home::Resources => types.others.push(of),
            }
        }
        let mut schemas: Vec<Schema> = reading.schemas.into_values().collect();
        schemas.sort_by_key(|schema| schema.number);
        types.schemas = schemas.into_iter().map(|schema| schema.definition).collect();
        Ok(types)
    }
}
