//! The order of sorted lists (RFC 7644 §3.4.2.3): keys of whole resources.

use std::cmp::Ordering;

use jiff::Timestamp;
use serde_json::{Map, Number, Value};

use super::error::{ScimError, shown};
use super::evaluate::{Folding, Place, is_compared, is_related};
use super::extension::{self, Readings};
use super::filter::{AttributePath, time};
use super::schema::{Attribute, Kind, ResourceType, Returned};
use super::text::fold;

/// The order of a sorted list.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sort {
    by: By,
    /// From the largest to the smallest value.
    pub(crate) descending: bool,
}

/// What a list is sorted by.
#[derive(Debug, Clone, PartialEq)]
enum By {
    Attribute(ResourceType, AttributePath),
    /// An attribute of an extension that no schema describes.
    Extension(Readings),
    /// An attribute that only other types have.
    Nothing,
}

/// The value that a resource is sorted by. Values of one attribute of a schema have one type. Those of extensions that
/// no schema describes may have several, and then each type is apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum SortKey {
    /// A boolean.
    Bool(bool),
    /// A number.
    Number(Quantity),
    /// A time.
    Time(Timestamp),
    /// A text, folded unless its attribute is case-exact.
    Text(String),
    /// No value: after all others.
    Missing,
}

/// A number that is ordered by its size.
#[derive(Debug, Clone)]
pub(crate) struct Quantity(Number);

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        extension::numeric(&self.0, &other.0).unwrap_or(Ordering::Equal)
    }
}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Quantity {}

impl Sort {
    /// Parses `sortBy` and `sortOrder`.
    ///
    /// # Errors
    /// `invalidValue` for an attribute that has no order, or an unknown order.
    pub(crate) fn new(of: ResourceType, by: &str, order: Option<&str>) -> Result<Self, ScimError> {
        let wrong = || {
            let by = shown(by);
            ScimError::InvalidValue(format!("`sortBy`: {} has no attribute `{by}` that it can be sorted by", of.name()))
        };
        let path = super::parse::patch_path(by, &mut super::Findings::new()).map_err(|_| wrong())?;
        if path.filter.is_some() {
            return Err(wrong());
        }
        let descending = descending(order)?;
        let Some(found) = of.resolve(&path.attribute) else {
            let readings = Readings::of_filter(of, &path.attribute).ok_or_else(wrong)?;
            return Ok(Self { by: By::Extension(readings), descending });
        };
        let sub = found.sub.or_else(|| found.attribute.default_sub());
        let unsorted = sub.unwrap_or(found.attribute).kind == Kind::Complex;
        let computed = found.attribute.returned == Returned::Never || !sub.is_none_or(is_compared);
        if unsorted || computed || is_related(of, &found) {
            return Err(wrong());
        }
        let path = AttributePath {
            schema: found.extension.map(str::to_owned),
            name: found.attribute.name.to_owned(),
            sub: sub.map(|sub| sub.name.to_owned()),
        };
        Ok(Self { by: By::Attribute(of, path), descending })
    }

    /// The order of a list of several types: of this type, if it has the attribute, else of resources without a value.
    ///
    /// # Errors
    /// As [`Sort::new`], when none of `types` has the attribute.
    pub(crate) fn among(
        types: &[ResourceType],
        of: ResourceType,
        by: &str,
        order: Option<&str>,
    ) -> Result<Self, ScimError> {
        match Self::new(of, by, order) {
            Err(_) if types.iter().any(|other| Self::new(*other, by, order).is_ok()) => {
                Ok(Self { by: By::Nothing, descending: descending(order)? })
            }
            other => other,
        }
    }

    /// Compares two keys in the requested order.
    #[must_use]
    pub(crate) fn compare(&self, one: &SortKey, other: &SortKey) -> Ordering {
        let order = one.cmp(other);
        if self.descending { order.reverse() } else { order }
    }

    /// The key of a [complete](super::complete) resource: of several values that of the primary one, else the first.
    #[must_use]
    pub(crate) fn key(&self, resource: &Map<String, Value>) -> SortKey {
        match &self.by {
            By::Attribute(of, path) => {
                let Some(found) = of.resolve(path) else { return SortKey::Missing };
                let place = Place::of(&found);
                let value = place.inside(place.attribute(resource).and_then(first));
                let leaf = found.sub.unwrap_or(found.attribute);
                value.map_or(SortKey::Missing, |value| typed(*of, leaf, value))
            }
            By::Extension(readings) => extension::value(readings, resource, first).map_or(SortKey::Missing, untyped),
            By::Nothing => SortKey::Missing,
        }
    }
}

fn descending(order: Option<&str>) -> Result<bool, ScimError> {
    match order {
        None => Ok(false),
        Some(word) if word.eq_ignore_ascii_case("ascending") => Ok(false),
        Some(word) if word.eq_ignore_ascii_case("descending") => Ok(true),
        Some(_) => Err(ScimError::InvalidValue("`sortOrder` must be ascending or descending".into())),
    }
}

/// Of several values the primary one, else the first.
fn first(value: &Value) -> Option<&Value> {
    match value {
        Value::Array(list) => {
            let primary = list.iter().find(|one| one.get("primary") == Some(&Value::Bool(true)));
            primary.or_else(|| list.first())
        }
        one => Some(one),
    }
}

fn typed(of: ResourceType, leaf: &Attribute, value: &Value) -> SortKey {
    match value {
        Value::Bool(value) => SortKey::Bool(*value),
        Value::Number(number) => SortKey::Number(Quantity(number.clone())),
        Value::String(text) if text.is_empty() => SortKey::Missing,
        Value::String(text) if leaf.kind == Kind::DateTime => time(text).map_or(SortKey::Missing, SortKey::Time),
        Value::String(text) => SortKey::Text(Folding::of(of, leaf).apply(text)),
        Value::Null | Value::Array(_) | Value::Object(_) => SortKey::Missing,
    }
}

/// The key of a value without a schema, as filters compare it.
fn untyped(value: &Value) -> SortKey {
    match value {
        Value::Bool(value) => SortKey::Bool(*value),
        Value::Number(number) => SortKey::Number(Quantity(number.clone())),
        Value::String(text) if text.is_empty() => SortKey::Missing,
        Value::String(text) => extension::instant(text).map_or_else(|| SortKey::Text(fold(text)), SortKey::Time),
        Value::Null | Value::Array(_) | Value::Object(_) => SortKey::Missing,
    }
}
