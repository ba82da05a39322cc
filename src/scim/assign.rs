//! Assignments: finds the attribute that a request means, in each permitted form. An attribute may be plain, dotted,
//! prefixed with a URN, or inside the object of a URN; it may be the key of a body or the path of an operation. The
//! same rules apply to users and groups, and to POST, PUT and PATCH.
//!
//! A PATCH names what it changes, so an attribute that is not understood there is refused (RFC 7644 §3.5.2). A POST or
//! PUT describes a whole resource: attributes that are not stored are skipped with a finding, and read-only ones are
//! ignored (RFC 7644 §3.5.1).

use serde_json::{Map, Value};

use super::conform;
use super::edit::Verb;
use super::error::{ScimError, shown};
use super::extension::{ExtensionEdit, Request};
use super::filter::AttributePath;
use super::finding::{FindingCode, Findings};
use super::parse::{self, PatchPath};
use super::patch::{Operation, What};
use super::schema::{Attribute, Mutability, Resolved, ResourceType};
use super::work::Work;

/// The kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Message {
    /// POST or PUT.
    Whole,
    /// PATCH.
    Patch,
}

/// Context of reading a request.
pub(super) struct Context<'a> {
    pub(super) of: ResourceType,
    /// The resource's own id, when an existing resource is changed.
    pub(super) id: Option<&'a str>,
    pub(super) message: Message,
    /// The extensions without a description that `schemas` of the request has.
    pub(super) listed: &'a [String],
    /// What is said of such extensions.
    pub(super) extensions: Vec<ExtensionEdit>,
    /// What does not fit the schema of an extension that gives way.
    pub(super) refused: Vec<(&'static str, ScimError)>,
    pub(super) findings: &'a mut Findings,
    pub(super) work: &'a mut Work,
}

/// One attribute to change.
pub(super) struct Assignment {
    pub(super) verb: Verb,
    pub(super) found: Resolved,
    /// The path as it was sent; inside an extension's object, completed with its schema.
    pub(super) path: PatchPath,
    /// The value as it was sent; none when there is none.
    pub(super) value: Option<Value>,
}

impl Assignment {
    /// True when this changes the members of a group.
    pub(super) fn is_members(&self) -> bool {
        self.found.extension.is_none() && self.found.attribute.name == "members"
    }
}

/// A URN whose object contains attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Container {
    Core,
    Extension(&'static str),
}

/// The attribute that a path leads to.
enum Located {
    Attribute(Resolved),
    /// An attribute that only the server changes.
    ReadOnly(&'static str),
    Schemas,
    /// An attribute that has no such sub-attribute.
    NoSuchSub(&'static Attribute),
    Unknown,
}

fn locate(of: ResourceType, path: &AttributePath) -> Located {
    let found = of.resolve(path);
    let whole = found.or_else(|| of.resolve(&AttributePath { sub: None, ..path.clone() }));
    match (found, whole) {
        (_, Some(whole)) if whole.attribute.mutability == Mutability::ReadOnly => {
            Located::ReadOnly(whole.attribute.name)
        }
        (_, Some(whole)) if whole.extension.is_none() && whole.attribute.name == "schemas" => Located::Schemas,
        (Some(found), _) => Located::Attribute(found),
        (None, Some(whole)) => Located::NoSuchSub(whole.attribute),
        (None, None) => Located::Unknown,
    }
}

/// True when a name is, or begins with, the URN of a core schema. Each type has one.
fn names_a_core_schema(name: &str) -> bool {
    name.to_ascii_lowercase().contains(":schemas:core:")
}

impl Context<'_> {
    /// The extension with a schema that a path begins with.
    fn described(&self, path: &PatchPath) -> Option<&'static str> {
        let path = self.of.normalized(&path.attribute);
        path.schema.as_deref().and_then(|urn| self.of.extension(urn)).map(|extension| extension.urn)
    }

    /// Keeps a problem of an extension that gives way until it is known what else the request does.
    ///
    /// # Errors
    /// Every other problem.
    pub(super) fn put_off(
        &mut self,
        urn: Option<&'static str>,
        result: Result<(), ScimError>,
    ) -> Result<(), ScimError> {
        match (urn, result) {
            (Some(urn), Err(problem)) if conform::gives_way(self.of, urn, &problem) => {
                let problem = if self.message == Message::Whole { problem.of_body() } else { problem };
                self.refused.push((urn, problem));
                Ok(())
            }
            (_, result) => result,
        }
    }

    fn container(&self, name: &str) -> Option<Container> {
        let name = name.trim();
        match self.of.extension(name) {
            Some(extension) => Some(Container::Extension(extension.urn)),
            None => name.eq_ignore_ascii_case(self.of.urn()).then_some(Container::Core),
        }
    }

    /// The assignments in an object: the body of a POST or PUT, or the value of an operation without a path.
    ///
    /// # Errors
    /// `invalidPath`, `invalidValue`, `mutability`.
    pub(super) fn object(&mut self, verb: Verb, object: Map<String, Value>) -> Result<Vec<Assignment>, ScimError> {
        let mut assignments = Vec::new();
        for (key, value) in object {
            self.key(verb, &key, value, &mut assignments)?;
        }
        Ok(assignments)
    }

    /// The assignments of a PATCH operation.
    ///
    /// # Errors
    /// `invalidPath`, `invalidValue`, `mutability`.
    pub(super) fn operation(&mut self, operation: Operation) -> Result<Vec<Assignment>, ScimError> {
        match operation.what {
            What::Path(path, value) => self.path(operation.verb, *path, value),
            What::Object(object) => self.object(operation.verb, object),
        }
    }

    /// The assignments of an operation with a path.
    ///
    /// # Errors
    /// `invalidPath`, `invalidValue`, `mutability`.
    fn path(&mut self, verb: Verb, path: PatchPath, value: Option<Value>) -> Result<Vec<Assignment>, ScimError> {
        let mut assignments = Vec::new();
        let container = if path.filter.is_none() { self.container(&path.to_string()) } else { None };
        let Some(container) = container else {
            let urn = self.described(&path);
            let assigned = self.assign(verb, path, value, true, &mut assignments);
            self.put_off(urn, assigned)?;
            return Ok(assignments);
        };
        let name = path.to_string();
        match (verb, container, value) {
            (Verb::Remove, Container::Extension(urn), None | Some(Value::Null)) => {
                self.clear(urn, &mut assignments);
            }
            (Verb::Remove, _, _) => {
                return Err(ScimError::InvalidPath(format!(
                    "`{}` is a schema; `remove` needs the path of one of its attributes",
                    shown(&name)
                )));
            }
            (_, _, Some(value)) => self.inside(verb, container, &name, value, &mut assignments)?,
            (_, _, None) => return Err(ScimError::InvalidValue(format!("`{}` comes without a value", shown(&name)))),
        }
        Ok(assignments)
    }

    fn key(&mut self, verb: Verb, key: &str, value: Value, assignments: &mut Vec<Assignment>) -> Result<(), ScimError> {
        self.work.spend(1)?;
        if let Some(container) = self.container(key) {
            return self.inside(verb, container, key, value, assignments);
        }
        match parse::patch_path(key, self.findings) {
            Ok(path) => {
                let urn = self.described(&path);
                let assigned = self.assign(verb, path, Some(value), false, assignments);
                self.put_off(urn, assigned)
            }
            Err(_) => self.unknown(key, &value),
        }
    }

    /// The attributes in the object of a URN.
    fn inside(
        &mut self,
        verb: Verb,
        container: Container,
        key: &str,
        value: Value,
        assignments: &mut Vec<Assignment>,
    ) -> Result<(), ScimError> {
        match (container, value) {
            (Container::Core, Value::Object(inner)) => {
                for (key, value) in inner {
                    self.key(verb, &key, value, assignments)?;
                }
            }
            (Container::Extension(urn), Value::Object(inner)) => {
                if !key.trim().eq_ignore_ascii_case(urn) {
                    self.findings.note(FindingCode::SchemaUnknown, key);
                }
                for (key, value) in inner {
                    let assigned = self.extension_key(verb, urn, &key, value, assignments);
                    self.put_off(Some(urn), assigned)?;
                }
            }
            (Container::Extension(urn), Value::Null) => {
                if verb == Verb::Replace && self.message == Message::Patch {
                    self.clear(urn, assignments);
                }
            }
            (Container::Core, Value::Null) if self.message == Message::Whole => {}
            _ => return Err(ScimError::InvalidValue(format!("`{}` must be an object", shown(key)))),
        }
        Ok(())
    }

    fn extension_key(
        &mut self,
        verb: Verb,
        urn: &'static str,
        key: &str,
        value: Value,
        assignments: &mut Vec<Assignment>,
    ) -> Result<(), ScimError> {
        self.work.spend(1)?;
        // Clients whose extensions are objects with a schema of their own send it along.
        if key.trim().eq_ignore_ascii_case("schemas") {
            self.schemas(Some(&value));
            return Ok(());
        }
        let Ok(mut path) = parse::patch_path(key, self.findings) else { return self.unknown(key, &value) };
        path.attribute = self.of.normalized(&path.attribute).into_owned();
        if path.attribute.schema.as_deref().is_some_and(|schema| !schema.eq_ignore_ascii_case(urn)) {
            return self.unknown(key, &value);
        }
        if path.attribute.schema.is_none() {
            path.attribute.schema = Some(urn.to_owned());
            let misplaced = matches!(locate(self.of, &path.attribute), Located::Unknown)
                && self.of.core_attribute(&path.attribute.name).is_some_and(|a| a.mutability != Mutability::ReadOnly);
            if misplaced && !value.is_null() {
                return Err(ScimError::InvalidPath(format!("`{}` is no attribute of `{urn}`", shown(key))));
            }
        }
        self.assign(verb, path, Some(value), false, assignments)
    }

    fn clear(&self, urn: &'static str, assignments: &mut Vec<Assignment>) {
        let attributes = self.of.extension(urn).map_or(&[][..], |extension| extension.attributes);
        assignments.extend(attributes.iter().map(|attribute| {
            let path = AttributePath { schema: Some(urn.to_owned()), name: attribute.name.to_owned(), sub: None };
            Assignment {
                verb: Verb::Remove,
                found: Resolved { extension: Some(urn), attribute, sub: None },
                path: PatchPath { attribute: path, filter: None, sub: None },
                value: None,
            }
        }));
    }

    /// Adds one assignment. `explicit`: the name is the path of an operation, which must be understood. Other names
    /// without a value ask for nothing.
    fn assign(
        &mut self,
        verb: Verb,
        mut path: PatchPath,
        value: Option<Value>,
        explicit: bool,
        assignments: &mut Vec<Assignment>,
    ) -> Result<(), ScimError> {
        path.attribute = self.of.normalized(&path.attribute).into_owned();
        let asks = explicit || value.as_ref().is_some_and(|value| !value.is_null());
        match locate(self.of, &path.attribute) {
            Located::Attribute(Resolved { attribute, sub: Some(sub), .. })
                if sub.mutability == Mutability::ReadOnly && attribute.name != "members" =>
            {
                match self.message {
                    Message::Whole => Ok(()),
                    Message::Patch => {
                        Err(ScimError::Mutability(format!("`{}.{}` is read-only", attribute.name, sub.name)))
                    }
                }
            }
            Located::Attribute(found) => {
                if found.extension.is_some() && path.attribute.schema.is_none() {
                    // In a whole resource, an attribute without a value is the same as an attribute that is not
                    // mentioned.
                    if !asks && self.message == Message::Whole {
                        return Ok(());
                    }
                    self.findings.note(FindingCode::AttributeOutsideExtension, found.attribute.name);
                }
                assignments.push(Assignment { verb, found, path, value });
                Ok(())
            }
            Located::ReadOnly("id") if path.filter.is_none() && path.attribute.sub.is_none() => {
                if verb == Verb::Remove {
                    return Err(ScimError::Mutability("`id` cannot be removed".into()));
                }
                self.own_id(value.as_ref(), explicit)
            }
            Located::ReadOnly(_) if self.message == Message::Whole => Ok(()),
            Located::ReadOnly(name) => Err(ScimError::Mutability(format!(
                "`{name}` is read-only{}",
                if name == "groups" { "; change the `members` of the group" } else { "" }
            ))),
            Located::Schemas if explicit => {
                Err(ScimError::Mutability("`schemas` follows from the attributes and cannot be changed".into()))
            }
            Located::Schemas => {
                self.schemas(value.as_ref());
                Ok(())
            }
            Located::NoSuchSub(attribute) if asks => Err(ScimError::InvalidPath(format!(
                "`{}` has no sub-attribute `{}`",
                attribute.name,
                shown(path.attribute.sub.as_deref().unwrap_or_default())
            ))),
            Located::NoSuchSub(_) => Ok(()),
            Located::Unknown => {
                let name = path.to_string();
                // An attribute that a schema here does not have is not one of an extension without a schema.
                if path.attribute.schema.as_deref().is_some_and(|urn| self.of.knows_schema(urn)) {
                    return if explicit {
                        Err(self.not_stored(&name))
                    } else {
                        self.unknown(&name, value.as_ref().unwrap_or(&Value::Null))
                    };
                }
                let request = Request { of: self.of, message: self.message, listed: self.listed, explicit };
                match ExtensionEdit::new(request, verb, path, value.as_ref(), self.findings)? {
                    Some(edit) => self.extensions.push(edit),
                    None if explicit => return Err(self.not_stored(&name)),
                    None => return self.unknown(&name, value.as_ref().unwrap_or(&Value::Null)),
                }
                Ok(())
            }
        }
    }

    fn not_stored(&self, name: &str) -> ScimError {
        ScimError::InvalidPath(format!(
            "{} has no attribute `{}` that is stored here; `/Schemas` lists those there are",
            self.of.name(),
            shown(name)
        ))
    }

    /// Handles a name that is not an attribute of this type.
    fn unknown(&mut self, name: &str, value: &Value) -> Result<(), ScimError> {
        if value.is_null() {
            return Ok(());
        }
        if self.message == Message::Patch || names_a_core_schema(name) {
            return Err(self.not_stored(name));
        }
        self.findings.note(FindingCode::AttributeNotStored, name);
        Ok(())
    }

    /// Notes unknown URNs. The endpoint, not `schemas`, decides the type.
    fn schemas(&mut self, value: Option<&Value>) {
        for urn in value.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
            if !self.of.knows_schema(urn) && !self.listed.iter().any(|listed| listed == urn) {
                self.findings.note(FindingCode::SchemaUnknown, urn);
            }
        }
    }

    fn own_id(&self, value: Option<&Value>, explicit: bool) -> Result<(), ScimError> {
        let Some(id) = self.id else { return Ok(()) };
        match value {
            Some(Value::String(given)) if given.eq_ignore_ascii_case(id) => Ok(()),
            None | Some(Value::Null) if !explicit => Ok(()),
            _ => Err(ScimError::Mutability("`id` is issued by this server and cannot be changed".into())),
        }
    }
}
