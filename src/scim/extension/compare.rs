//! Comparison of values without a schema. The type of the stored value decides: texts are compared without case, dates
//! and times by the instant, numbers by their size.

use std::cmp::Ordering;

use serde_json::{Map, Number, Value};

use super::Readings;
use crate::scim::element::{compare, is_empty};
use crate::scim::error::{ScimError, shown};
use crate::scim::filter::{AttributePath, CompareOp, Filter, FilterValue, Test, time};
use crate::scim::json::member;
use crate::scim::text::fold;
use crate::scim::work::{Work, steps};

/// A test, if values of some type permit it.
///
/// # Errors
/// `invalidFilter`: an order of `null`, or of booleans.
pub(in crate::scim) fn checked(test: &Test, path: &AttributePath) -> Result<Test, ScimError> {
    match test {
        Test::Compare(op, FilterValue::Null | FilterValue::Bool(_))
            if !matches!(op, CompareOp::Equal | CompareOp::NotEqual) =>
        {
            let path = path.to_string();
            Err(ScimError::InvalidFilter(format!(
                "`{}` can be compared with null, true and false by `eq` and `ne` only",
                shown(&path)
            )))
        }
        _ => Ok(test.clone()),
    }
}

/// Checks a filter on the elements of an attribute.
///
/// # Errors
/// `invalidFilter` as [`checked`], and for names that are not those of sub-attributes.
pub(in crate::scim) fn checked_inside(filter: &Filter) -> Result<(), ScimError> {
    match filter {
        Filter::And(terms) | Filter::Or(terms) => terms.iter().try_for_each(checked_inside),
        Filter::Not(inner) => checked_inside(inner),
        Filter::Attribute(path, test) if path.schema.is_none() => checked(test, path).map(drop),
        Filter::Attribute(path, _) | Filter::Element { path, .. } => {
            Err(ScimError::InvalidFilter(format!("`{}` is not a sub-attribute", shown(&path.to_string()))))
        }
    }
}

/// True when the attribute of a path passes a test; of several values one is enough.
///
/// # Errors
/// `tooMany`, when it takes too many steps.
pub(in crate::scim) fn passes(
    readings: &Readings,
    test: &Test,
    resource: &Map<String, Value>,
    work: &mut Work,
) -> Result<bool, ScimError> {
    work.spend(1)?;
    let Some((urn, reading)) = readings.among(&resource.keys().map(String::as_str)) else {
        return holds(test, None, work);
    };
    let home = resource.get(urn);
    let value = match &reading.name {
        None => home,
        Some(name) => home.and_then(|home| part(home, name)),
    };
    let inside = |value| match &reading.sub {
        None => Some(value),
        Some(sub) => part(value, sub),
    };
    match value {
        Some(Value::Array(list)) if !list.is_empty() => {
            for element in list {
                if holds(test, inside(element), work)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        value => holds(test, value.and_then(inside), work),
    }
}

/// The value of an attribute, or of its sub-attribute in the element that `choose` takes of several. An object means its
/// `value`.
pub(in crate::scim) fn value<'v>(
    readings: &Readings,
    resource: &'v Map<String, Value>,
    choose: fn(&'v Value) -> Option<&'v Value>,
) -> Option<&'v Value> {
    let (urn, reading) = readings.among(&resource.keys().map(String::as_str))?;
    let chosen = choose(part(resource.get(urn)?, reading.name.as_ref()?)?)?;
    match (&reading.sub, chosen) {
        (Some(sub), chosen) => part(chosen, sub),
        (None, Value::Object(object)) => member(object, "value"),
        (None, chosen) => Some(chosen),
    }
}

/// True when one element of the attribute of a path passes a filter, and the further test of one of its parts.
///
/// # Errors
/// `tooMany`, when it takes too many steps.
pub(in crate::scim) fn passes_element(
    readings: &Readings,
    filter: &Filter,
    then: Option<&(String, Test)>,
    resource: &Map<String, Value>,
    work: &mut Work,
) -> Result<bool, ScimError> {
    work.spend(1)?;
    let Some((urn, reading)) = readings.among(&resource.keys().map(String::as_str)) else { return Ok(false) };
    let Some(name) = &reading.name else { return Ok(false) };
    let elements = match resource.get(urn).and_then(|home| part(home, name)) {
        Some(Value::Array(list)) => list.as_slice(),
        Some(one) => std::slice::from_ref(one),
        None => &[],
    };
    for element in elements {
        let further = match then {
            None => true,
            Some((sub, test)) => holds(test, part(element, sub), work)?,
        };
        if further && selects(filter, element, work)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A part of an element, whatever the case of its name. `value` of what has no parts is itself.
fn part<'v>(element: &'v Value, name: &str) -> Option<&'v Value> {
    match element {
        Value::Object(object) => member(object, name),
        Value::Array(_) => None,
        one => name.eq_ignore_ascii_case("value").then_some(one),
    }
}

/// True when an element passes a filter.
pub(super) fn selects(filter: &Filter, element: &Value, work: &mut Work) -> Result<bool, ScimError> {
    match filter {
        Filter::And(terms) => {
            for term in terms {
                if !selects(term, element, work)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        Filter::Or(terms) => {
            for term in terms {
                if selects(term, element, work)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        Filter::Not(inner) => Ok(!selects(inner, element, work)?),
        Filter::Attribute(path, test) => {
            let value = part(element, &path.name);
            holds(test, path.sub.as_ref().map_or(value, |sub| value.and_then(|value| part(value, sub))), work)
        }
        Filter::Element { .. } => Ok(false),
    }
}

fn holds(test: &Test, value: Option<&Value>, work: &mut Work) -> Result<bool, ScimError> {
    work.spend(1)?;
    let (op, wanted) = match test {
        Test::Present => return Ok(!is_empty(value)),
        Test::Compare(op, FilterValue::Null) => return Ok((*op == CompareOp::Equal) == is_empty(value)),
        Test::Compare(op, wanted) => (*op, wanted),
    };
    // An object means its `value` where none of its parts is named, as in the core schemas.
    let value = match value {
        Some(Value::Object(object)) => member(object, "value"),
        other => other,
    };
    let order = match (wanted, value) {
        (FilterValue::String(wanted), Some(Value::String(given))) => {
            work.spend(steps(given.len() + wanted.len()))?;
            match instant(wanted).zip(instant(given)).filter(|_| op.compares_order()) {
                Some((wanted, given)) => Some(given.cmp(&wanted)),
                None => return Ok(compare(op, &fold(given), &fold(wanted))),
            }
        }
        (FilterValue::String(expected), Some(Value::Bool(given))) => boolean(expected).map(|wanted| given.cmp(&wanted)),
        (FilterValue::Bool(wanted), Some(Value::Bool(given))) => Some(given.cmp(wanted)),
        (FilterValue::Number(wanted), Some(Value::Number(given))) => numeric(given, wanted),
        _ => None,
    };
    Ok(match (op, order) {
        (CompareOp::NotEqual, order) => order.is_none_or(Ordering::is_ne),
        (CompareOp::Equal, Some(order)) => order.is_eq(),
        (CompareOp::Greater, Some(order)) => order.is_gt(),
        (CompareOp::GreaterOrEqual, Some(order)) => order.is_ge(),
        (CompareOp::Less, Some(order)) => order.is_lt(),
        (CompareOp::LessOrEqual, Some(order)) => order.is_le(),
        _ => false,
    })
}

fn boolean(word: &str) -> Option<bool> {
    [("true", true), ("false", false)].into_iter().find_map(|(name, is)| name.eq_ignore_ascii_case(word).then_some(is))
}

/// A date or time in the form `2026-01-31…`; other texts, such as eight digits, are none.
pub(in crate::scim) fn instant(text: &str) -> Option<jiff::Timestamp> {
    let dashes = |at: usize| text.as_bytes().get(at) == Some(&b'-');
    if dashes(4) && dashes(7) { time(text) } else { None }
}

/// The order of two numbers, exact for whole ones.
pub(in crate::scim) fn numeric(one: &Number, other: &Number) -> Option<Ordering> {
    match (one.as_i64().zip(other.as_i64()), one.as_u64().zip(other.as_u64())) {
        (Some((one, other)), _) => Some(one.cmp(&other)),
        (_, Some((one, other))) => Some(one.cmp(&other)),
        _ => one.as_f64()?.partial_cmp(&other.as_f64()?),
    }
}
