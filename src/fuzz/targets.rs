//! The targets: functions of bytes that panic when an invariant is broken.

use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::api::glob::{PatternError, ResourcePattern};
use crate::api::manifest::{Object, ParsedDocument, lint, parse_file, read_object};
use crate::model::{GroupId, MemberChange, ResourceKind, UserId};
use crate::scim::{Findings, GroupChange, MAX_WORK, ResourceChange, ResourceType, ScimError, json as body, parse};

/// Longest detail of a refusal, in bytes: it is sent to the client.
const MAX_DETAIL: usize = 2000;

/// Something that reads bytes from outside.
pub(super) struct Target {
    /// Its folder in `tests/fuzz`.
    pub(crate) name: &'static str,
    /// Runs it. Returns the form of the result, by which inputs are told apart.
    pub(crate) run: fn(&[u8]) -> String,
    /// Texts with a meaning for it.
    pub(crate) words: &'static [&'static str],
    /// Number of inputs of a test run.
    pub(crate) inputs: u64,
    /// Longest input, in bytes.
    pub(crate) longest: usize,
}

pub(super) const FILTER: Target = Target {
    name: "filter",
    run: filter,
    words: &[
        " eq ",
        " ne ",
        " co ",
        " sw ",
        " ew ",
        " gt ",
        " ge ",
        " lt ",
        " le ",
        " pr",
        " and ",
        " or ",
        "not (",
        "(",
        ")",
        "[",
        "]",
        "].",
        "\"",
        "\\\"",
        "\\u0061",
        "\\u00e9",
        "true",
        "False",
        "null",
        "-1.5e3",
        "userName",
        "emails",
        "emails.value",
        "members",
        "active",
        "meta.lastModified",
        "urn:ietf:params:scim:schemas:core:2.0:User:",
        "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User:manager",
    ],
    inputs: 50_000,
    longest: 6000,
};

pub(super) const PATH: Target = Target {
    name: "path",
    run: path,
    words: &[
        "emails",
        "[type eq \"work\"]",
        ".value",
        "members",
        "[value eq \"",
        "\"]",
        "name.givenName",
        "active",
        "urn:ietf:params:scim:schemas:core:2.0:Group",
        ":members",
        "[",
        "]",
        ".",
        ":",
        " and ",
        " or ",
        "not (",
        ")",
        "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User",
        "$",
        "primary eq true",
    ],
    inputs: 50_000,
    longest: 6000,
};

pub(super) const PATCH: Target = Target {
    name: "patch",
    run: patch,
    words: &[
        "\"op\": ",
        "\"add\"",
        "\"Replace\"",
        "\"remove\"",
        "\"path\": ",
        "\"value\": ",
        "\"Operations\": [",
        "{",
        "}",
        "[",
        "]",
        ",",
        "\"members\"",
        "\"active\"",
        "\"False\"",
        "false",
        "null",
        "\"userName\"",
        "\"emails\"",
        "\"emails[type eq \\\"work\\\"].value\"",
        "\"members[value eq \\\"00000000-0000-4000-8000-000000000011\\\"]\"",
        "\"name.givenName\"",
        "\"urn:ietf:params:scim:schemas:extension:enterprise:2.0:User\"",
        "1e400",
        "\\ud800",
        "\"primary\": true",
        "\"type\": \"work\"",
        "\"displayName\"",
        "\"externalId\"",
        "\"id\"",
        "\"schemas\"",
    ],
    inputs: 30_000,
    longest: 16_000,
};

pub(super) const MANIFEST: Target = Target {
    name: "manifest",
    run: manifest,
    words: &[
        "\n---\n",
        "apiVersion: rolecall.dev/v1alpha1\n",
        "kind: RoleMapping\n",
        "kind: CloudRunTarget\n",
        "kind: IdentityProvider\n",
        "kind: Secret\n",
        "kind: List\n",
        "metadata: ",
        "{name: a, namespace: b}",
        "spec:\n",
        "  grants:\n",
        "  subjects:\n",
        "&a ",
        "*a",
        "<<: *a",
        "!!binary ",
        "!!str ",
        "|\n  ",
        ">-\n  ",
        "\"",
        "'",
        "- ",
        "? ",
        ": ",
        "[",
        "]",
        "{",
        "}",
        "#",
        "~",
        "null",
        "0x1F",
        "1_000",
        ".inf",
        "2027-01-31T00:00:00Z",
        "%YAML 1.1\n",
        "roles: [roles/run.invoker]",
        "resources: [services/*]",
        "mode: Enforce\n",
        "\t",
        "\u{feff}",
        "items:\n",
    ],
    inputs: 3_000,
    longest: 16_000,
};

pub(super) const GLOB: Target = Target {
    name: "glob",
    run: glob,
    words: &["services/", "jobs/", "workerPools/", "*", "**", "-", "a", "ab", "aab", "\n", "*a*b*", "checkout-"],
    inputs: 50_000,
    longest: 400,
};

/// The text with each run of letters and digits as one letter, shortened.
fn form(text: &str) -> String {
    let mut form = String::new();
    for c in text.chars() {
        let c = if c.is_alphanumeric() { 'a' } else { c };
        if !(c == 'a' && form.ends_with('a')) {
            form.push(c);
        }
        if form.len() >= 40 {
            break;
        }
    }
    form
}

/// Checks a refusal, and returns its form.
fn refusal(error: &ScimError) -> String {
    let detail = error.to_string();
    assert!(!error.reason().is_empty() && !detail.is_empty(), "{error:?}");
    assert!(detail.len() <= MAX_DETAIL, "{} bytes: {detail}", detail.len());
    assert!((400..500).contains(&error.status()), "{error:?}");
    let words: String = detail.split('`').step_by(2).collect();
    format!("{} {}", error.reason(), form(&words))
}

fn filter(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let filter = match parse::filter(&text, &mut Findings::new()) {
        Ok(filter) => filter,
        Err(error) => return refusal(&error),
    };
    let printed = filter.to_string();
    assert!(printed.len() <= 8 * text.len() + 64, "{} bytes become {}", text.len(), printed.len());
    if printed.len() <= parse::MAX_LENGTH {
        assert_eq!(parse::filter(&printed, &mut Findings::new()).as_ref(), Ok(&filter), "{printed}");
    }
    let mut forms = form(&printed);
    for of in [ResourceType::User, ResourceType::Group] {
        match filter.resolved(of) {
            Ok(resolved) => {
                let printed = resolved.to_string();
                if printed.len() <= parse::MAX_LENGTH {
                    let again = parse::filter(&printed, &mut Findings::new()).and_then(|again| again.resolved(of));
                    assert_eq!(again, Ok(resolved), "{printed}");
                }
                forms.push('+');
            }
            Err(error) => forms.push_str(&refusal(&error)),
        }
    }
    forms
}

fn path(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    match parse::patch_path(&text, &mut Findings::new()) {
        Ok(path) => {
            let printed = path.to_string();
            assert!(printed.len() <= 8 * text.len() + 64, "{} bytes become {}", text.len(), printed.len());
            if printed.len() <= parse::MAX_LENGTH {
                assert_eq!(parse::patch_path(&printed, &mut Findings::new()), Ok(path), "{printed}");
            }
            form(&printed)
        }
        Err(error) => refusal(&error),
    }
}

fn alice() -> Value {
    json!({
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"],
        "active": true,
        "userName": "alice@example.com",
        "externalId": "x1",
        "name": {"givenName": "Alice", "familyName": "Example"},
        "emails": [{"value": "alice@example.com", "type": "work", "primary": true}],
    })
}

fn patch(bytes: &[u8]) -> String {
    let body = match body::object(bytes, &mut Findings::new()) {
        Ok(body) => body,
        Err(error) => return refusal(&error),
    };
    format!("{} | {}", patch_of_user(body.clone()), patch_of_group(body))
}

fn patch_of_user(body: Map<String, Value>) -> String {
    let (id, before, mut findings) = (UserId(Uuid::from_u128(1)), alice(), Findings::new());
    let change = ResourceChange::patch(ResourceType::User, id, body, &mut findings);
    assert!(findings.as_slice().len() <= Findings::MAX);
    let change = match change {
        Ok(change) => change,
        Err(error) => return refusal(&error),
    };
    let (result, work) = change.apply_counted(&before, &mut Findings::new());
    assert!(work.spent() <= 2 * MAX_WORK, "{work:?}");
    let after = match result {
        Ok(after) => after,
        Err(error) => return refusal(&error),
    };
    assert!(after["userName"].as_str().is_some_and(|name| !name.trim().is_empty()), "{after}");
    assert!(after.get("active").is_none_or(Value::is_boolean), "{after}");
    assert!(after.get("id").is_none() && after.get("members").is_none(), "{after}");
    let Value::Object(whole) = after.clone() else { panic!("{after}") };
    let put =
        ResourceChange::put(ResourceType::User, id, whole, &mut Findings::new()).and_then(|put| put.apply(&after));
    assert_eq!(put.as_ref(), Ok(&after), "a PUT of the result changes it");
    form(&after.to_string()[..after.to_string().len().min(400)])
}

fn patch_of_group(body: Map<String, Value>) -> String {
    let change = match GroupChange::patch(ResourceType::Group, GroupId(Uuid::from_u128(2)), body, &mut Findings::new())
    {
        Ok(change) => change,
        Err(error) => return refusal(&error),
    };
    let mut forms = String::new();
    for change in &change.members.list {
        match change {
            MemberChange::Clear => forms.push('0'),
            MemberChange::Add(ids) | MemberChange::Remove(ids) | MemberChange::Replace(ids) => {
                assert!(!ids.is_empty(), "a change of nobody: {change:?}");
                forms.push('m');
            }
        }
    }
    let before = json!({"displayName": "team", "externalId": "x2"});
    match change.apply(&before) {
        Ok(Some(after)) => {
            assert!(after["displayName"].as_str().is_some_and(|name| !name.trim().is_empty()), "{after}");
            forms.push('+');
        }
        Ok(None) => forms.push('-'),
        Err(error) => forms.push_str(&refusal(&error)),
    }
    forms.truncate(40);
    forms
}

fn manifest(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let file = if text.trim_start().starts_with('{') { "a.json" } else { "a.yaml" };
    let parsed = parse_file(file, &text);
    assert!(parsed.len() <= text.len() + 1);
    let report = lint([(file, parsed.as_slice())]);
    let good = parsed.iter().filter(|document| document.result.is_ok()).count();
    assert!(report.has_errors() || good == parsed.len(), "{report:?}");
    let mut forms: Vec<String> = parsed.iter().take(4).map(document).collect();
    forms.sort();
    forms.join(" ")
}

fn document(document: &ParsedDocument) -> String {
    let object = match &document.result {
        Ok(object) => object,
        Err(problems) => {
            assert!((1..=50).contains(&problems.len()), "{problems:?}");
            for problem in problems {
                assert!(!problem.reason.is_empty() && !problem.message.is_empty(), "{problem:?}");
                assert!(problem.message.len() <= MAX_DETAIL, "{} bytes: {problem:?}", problem.message.len());
            }
            return format!("{} {}", problems[0].reason, form(&problems[0].field));
        }
    };
    let value = match object {
        Object::IdentityProvider(object) => serde_json::to_value(object),
        Object::CloudRunTarget(object) => serde_json::to_value(object),
        Object::RoleMapping(object) => serde_json::to_value(object),
        Object::Secret(_) => return "Secret".to_owned(),
    };
    let value = value.unwrap();
    let again = read_object("again", &value).unwrap_or_else(|problems| panic!("{value}: {problems:?}"));
    assert_eq!(again.hash(), object.hash(), "{value}");
    form(&value["spec"].to_string().chars().take(200).collect::<String>())
}

/// Matches by comparing each character with each place of the pattern.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let mut places = vec![false; pattern.len() + 1];
    places[0] = true;
    for at in 0..pattern.len() {
        places[at + 1] = places[at] && pattern[at] == b'*';
    }
    for c in name {
        let mut next = vec![false; pattern.len() + 1];
        for at in 0..pattern.len() {
            next[at + 1] =
                if pattern[at] == b'*' { next[at] || places[at + 1] } else { places[at] && pattern[at] == *c };
        }
        places = next;
    }
    places[pattern.len()]
}

fn glob(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let (text, name) = text.split_once('\n').unwrap_or((&text, "checkout-api"));
    let pattern = match ResourcePattern::parse(text) {
        Ok(pattern) => pattern,
        Err(error) => {
            let detail = error.to_string();
            assert!(detail.len() <= MAX_DETAIL, "{detail}");
            return match error {
                PatternError::UnknownCollection(_) => "UnknownCollection".to_owned(),
                PatternError::InvalidName(_) => "InvalidName".to_owned(),
            };
        }
    };
    assert_eq!(pattern.to_string(), text);
    assert_eq!(ResourcePattern::parse(&pattern.to_string()), Ok(pattern.clone()));
    let (_, of_name) = text.split_once('/').unwrap();
    for kind in [ResourceKind::Service, ResourceKind::Job, ResourceKind::WorkerPool] {
        let wanted = kind == pattern.kind() && matches(of_name.as_bytes(), name.as_bytes());
        assert_eq!(pattern.matches(kind, name), wanted, "{pattern} and {name:?}");
    }
    format!("{} {}", form(text), pattern.matches(pattern.kind(), name))
}
