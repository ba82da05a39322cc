//! Selection of the attributes in an answer: `attributes` and `excludedAttributes` (RFC 7644 §3.9).

use serde_json::{Map, Value};

use super::extension::Readings;
use super::filter::AttributePath;
use super::finding::Findings;
use super::parse;
use super::schema::{ENTERPRISE_URN, ResourceType, Returned};
use super::text::fold;

/// The attributes wanted in the answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Projection {
    only: Option<Vec<Wanted>>,
    without: Vec<Wanted>,
    /// Attributes that are in every answer.
    always: Vec<AttributePath>,
    /// Attributes that are in no answer.
    hidden: Vec<Wanted>,
    /// Attributes that are only in answers to requests that ask for them or write them.
    unasked: Vec<AttributePath>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Wanted {
    /// A whole extension.
    Extension(String),
    Attribute(AttributePath),
    /// An extension that no schema describes, or an attribute of one.
    Unknown(Readings),
}

impl Projection {
    /// Parses the values of the two query parameters: comma-separated lists of names in any case. Unknown names are
    /// ignored (RFC 7644 §3.9 has no error for them).
    #[must_use]
    pub(crate) fn new(of: ResourceType, attributes: Option<&str>, excluded: Option<&str>) -> Self {
        let list =
            |text: &str| text.split(',').filter_map(|name| wanted(of, name.trim())).take(100).collect::<Vec<_>>();
        let only = attributes.filter(|text| !text.trim().is_empty()).map(list);
        let mut projection = Self { only, without: excluded.map(list).unwrap_or_default(), ..Self::default() };
        if matches!(of, ResourceType::Registered(_)) {
            projection.returned(of);
        }
        projection
    }

    /// Notes what a schema from a file says of answers. What is built in and not always returned is never stored.
    fn returned(&mut self, of: ResourceType) {
        let core = of.attributes().iter().map(|attribute| (None, attribute));
        let extensions = of.extensions().iter();
        let inside = extensions.flat_map(|one| one.attributes.iter().map(|attribute| (Some(one.urn), attribute)));
        for (urn, attribute) in core.chain(inside) {
            let subs = attribute.subs.iter().map(|sub| (Some(sub.name), sub.returned));
            for (sub, returned) in std::iter::once((None, attribute.returned)).chain(subs) {
                let path = AttributePath {
                    schema: urn.map(str::to_owned),
                    name: attribute.name.to_owned(),
                    sub: sub.map(str::to_owned),
                };
                match returned {
                    Returned::Always if sub.is_none() => self.always.push(path),
                    // A part is there whenever its attribute is.
                    Returned::Default | Returned::Always => {}
                    Returned::Request if self.requests(urn, attribute.name, sub) => {}
                    Returned::Request => self.unasked.push(path),
                    Returned::Never => self.hidden.push(Wanted::Attribute(path)),
                }
            }
        }
        let always = |wanted: &Wanted| matches!(wanted, Wanted::Attribute(path) if self.always.contains(path));
        self.without.retain(|wanted| !always(wanted));
    }

    /// The same for the answer to a request with this body: what it names is shown, even if it is only returned when it is
    /// asked for (RFC 7643 §2.2).
    #[must_use]
    pub(crate) fn with_written(mut self, body: &Map<String, Value>) -> Self {
        if !self.unasked.is_empty() {
            let text = fold(&Value::Object(body.clone()).to_string());
            self.unasked.retain(|path| !text.contains(&fold(&path.name)));
        }
        self
    }

    /// True when the request lists attributes.
    #[must_use]
    pub(crate) fn is_explicit(&self) -> bool {
        self.only.is_some()
    }

    /// True when a core attribute is part of the answer. Checked before an expensive one is read.
    #[must_use]
    pub(crate) fn includes(&self, name: &str) -> bool {
        let names =
            |wanted: &Wanted| matches!(wanted, Wanted::Attribute(path) if path.schema.is_none() && path.name == name);
        self.only.as_ref().is_none_or(|only| only.iter().any(names))
            && !self
                .without
                .iter()
                .any(|wanted| names(wanted) && matches!(wanted, Wanted::Attribute(path) if path.sub.is_none()))
    }

    /// True when the request names an attribute that is in an answer only then. `sub`: only this part of it counts.
    #[must_use]
    pub(crate) fn requests(&self, extension: Option<&str>, name: &str, sub: Option<&str>) -> bool {
        let names = |wanted: &Wanted| match wanted {
            Wanted::Attribute(path) => {
                path.schema.as_deref() == extension
                    && path.name == name
                    && (sub.is_none() || path.sub.as_deref() == sub)
            }
            Wanted::Extension(_) | Wanted::Unknown(_) => false,
        };
        self.only.as_ref().is_some_and(|only| only.iter().any(names))
    }

    /// True when the request names `groups` of a user.
    #[must_use]
    pub(crate) fn requests_groups(&self) -> bool {
        self.requests(None, "groups", None)
    }

    /// True when the request names `members.display` of a group.
    #[must_use]
    pub(crate) fn requests_member_names(&self) -> bool {
        self.requests(None, "members", Some("display"))
    }

    /// True when the request names `manager.displayName` of a user.
    #[must_use]
    pub(crate) fn requests_manager_name(&self) -> bool {
        self.requests(Some(ENTERPRISE_URN), "manager", Some("displayName"))
    }

    /// True when the answer contains what follows from other resources, so that it may change while the version of the
    /// resource stays.
    #[must_use]
    pub(crate) fn requests_computed(&self) -> bool {
        self.requests_groups() || self.requests_member_names() || self.requests_manager_name()
    }

    /// Keeps only the wanted attributes of `resource`; `id` and `schemas` always stay.
    #[must_use]
    pub(crate) fn apply(&self, resource: Value) -> Value {
        let Value::Object(mut resource) = resource else { return resource };
        if let Some(only) = &self.only {
            let mut chosen = Map::new();
            for always in ["schemas", "id"] {
                if let Some(value) = resource.get(always) {
                    chosen.insert(always.to_owned(), value.clone());
                }
            }
            for wanted in only {
                copy(&resource, wanted, &mut chosen);
            }
            for path in &self.always {
                copy(&resource, &Wanted::Attribute(path.clone()), &mut chosen);
            }
            resource = chosen;
        }
        let unasked: Vec<Wanted> = self.unasked.iter().cloned().map(Wanted::Attribute).collect();
        for wanted in self.without.iter().chain(&self.hidden).chain(&unasked) {
            remove(&mut resource, wanted);
        }
        Value::Object(resource)
    }
}

fn wanted(of: ResourceType, name: &str) -> Option<Wanted> {
    if let Some(extension) = of.extension(name) {
        return Some(Wanted::Extension(extension.urn.to_owned()));
    }
    let path = parse::patch_path(name, &mut Findings::new()).ok()?;
    let Some(found) = of.resolve(&path.attribute) else {
        return Readings::of(&path.attribute).map(Wanted::Unknown);
    };
    Some(Wanted::Attribute(AttributePath {
        schema: found.extension.map(str::to_owned),
        name: found.attribute.name.to_owned(),
        sub: found.sub.map(|sub| sub.name.to_owned()),
    }))
}

/// The part of an extension in this resource; none when the resource does not have the extension.
fn known(readings: &Readings, resource: &Map<String, Value>) -> Option<Wanted> {
    Some(match readings.path_in(resource)? {
        (urn, None, _) => Wanted::Extension(urn),
        (urn, Some(name), sub) => Wanted::Attribute(AttributePath { schema: Some(urn), name, sub }),
    })
}

fn copy(from: &Map<String, Value>, wanted: &Wanted, to: &mut Map<String, Value>) {
    let path = match wanted {
        Wanted::Extension(urn) => {
            if let Some(extension) = from.get(urn) {
                to.insert(urn.clone(), extension.clone());
            }
            return;
        }
        Wanted::Unknown(readings) => {
            if let Some(wanted) = known(readings, from) {
                copy(from, &wanted, to);
            }
            return;
        }
        Wanted::Attribute(path) => path,
    };
    let (from, to) = match &path.schema {
        None => (from, to),
        Some(urn) => {
            let Some(Value::Object(from)) = from.get(urn) else { return };
            if !from.contains_key(&path.name) {
                return;
            }
            let Value::Object(to) = to.entry(urn.clone()).or_insert_with(|| Value::Object(Map::new())) else { return };
            (from, to)
        }
    };
    let Some(value) = from.get(&path.name) else { return };
    let Some(sub) = &path.sub else {
        to.insert(path.name.clone(), value.clone());
        return;
    };
    match value {
        Value::Object(object) => {
            let Some(value) = object.get(sub) else { return };
            if let Value::Object(there) = to.entry(path.name.clone()).or_insert_with(|| Value::Object(Map::new())) {
                there.insert(sub.clone(), value.clone());
            }
        }
        Value::Array(elements) => {
            let there = to
                .entry(path.name.clone())
                .or_insert_with(|| Value::Array(vec![Value::Object(Map::new()); elements.len()]));
            let Value::Array(there) = there else { return };
            for (to, from) in there.iter_mut().zip(elements) {
                if let (Value::Object(to), Some(value)) = (to, from.get(sub)) {
                    to.insert(sub.clone(), value.clone());
                }
            }
        }
        _ => {}
    }
}

fn remove(resource: &mut Map<String, Value>, wanted: &Wanted) {
    let path = match wanted {
        Wanted::Extension(urn) => {
            resource.shift_remove(urn);
            return;
        }
        Wanted::Unknown(readings) => {
            if let Some(wanted) = known(readings, resource) {
                remove(resource, &wanted);
            }
            return;
        }
        Wanted::Attribute(path) if path.schema.is_none() && matches!(path.name.as_str(), "id" | "schemas") => return,
        Wanted::Attribute(path) => path,
    };
    let home = match &path.schema {
        None => resource,
        Some(urn) => match resource.get_mut(urn) {
            Some(Value::Object(extension)) => extension,
            _ => return,
        },
    };
    match (&path.sub, home.get_mut(&path.name)) {
        (None, _) => drop(home.shift_remove(&path.name)),
        (Some(sub), Some(Value::Object(object))) => drop(object.shift_remove(sub)),
        (Some(sub), Some(Value::Array(elements))) => {
            for element in elements {
                if let Value::Object(element) = element {
                    element.shift_remove(sub);
                }
            }
        }
        _ => {}
    }
}
