mod rules;
mod table;

use std::fmt::Write as _;
use std::path::Path;

use proptest::prelude::*;

use table::{MAPPING, PROVIDER, TARGET, replaced};

use super::*;
use crate::api::{DeletionPolicy, MappingMode, OnMissing, ProviderState, SecretKey, Strictness, UserAttribute};

fn one(text: &str) -> Result<Object, Vec<Problem>> {
    let mut documents = parse_file("a.yaml", text);
    assert_eq!(documents.len(), 1, "{documents:?}");
    documents.remove(0).result
}

fn mapping(text: &str) -> RoleMapping {
    match one(text) {
        Ok(Object::RoleMapping(mapping)) => *mapping,
        other => panic!("{other:?}"),
    }
}

fn reasons(problems: &[Problem]) -> Vec<(&str, &str)> {
    problems.iter().map(|problem| (problem.field.as_str(), problem.reason)).collect()
}

#[test]
fn the_smallest_manifests_get_the_defaults_of_the_crd() {
    let provider = replaced(PROVIDER, "  state: Active\n  staleAfter: 26h\n", "");
    let provider = replaced(&replaced(&provider, "    strictness: Explain\n", ""), ", key: token", "");
    let provider = replaced(&provider, "        notAfter: \"2027-01-31T00:00:00Z\"\n", "");
    let Ok(Object::IdentityProvider(provider)) = one(&provider) else { panic!() };
    assert_eq!(provider.spec.state, ProviderState::Active);
    assert_eq!(provider.spec.scim.strictness, Strictness::Explain);
    assert_eq!(provider.spec.scim.tokens[0].secret_ref.key, SecretKey::Token);
    assert_eq!(provider.spec.scim.tokens[0].not_after, None);
    assert_eq!(provider.spec.stale_after, None);
    assert_eq!(provider.spec.principals.users.google_account.attribute, UserAttribute::UserName);

    let target = replaced(TARGET, "  discoveryInterval: 5m\n", "");
    let Ok(Object::CloudRunTarget(target)) = one(&target) else { panic!() };
    assert_eq!(target.spec.discovery_interval, "5m");

    let spec = mapping(&replaced(MAPPING, "  mode: Enforce\n  onMissing: Revert\n  deletionPolicy: Revoke\n", "")).spec;
    assert_eq!(spec.mode, MappingMode::Enforce);
    assert_eq!(spec.on_missing, OnMissing::Revert);
    assert_eq!(spec.deletion_policy, DeletionPolicy::Revoke);
}

#[test]
fn all_problems_of_a_document_are_reported_at_once_with_line_column_and_field() {
    let text = "apiVersion: rolecall.dev/v1alpha1
kind: RoleMapping
metadata:
  name: checkout-team
  namespace: checkout
spec:
  subjects:
    - identityProvider: okta
      groups:
        - displayName: a
          externalId: b
  grants:
    - target: {name: shop-dev}
      resources: [checkout]
      rols: [roles/run.invoker]
    - target: {name: 7}
      resources: [services/x]
      roles:
        - roles/run.invoker
        - roles/owner
  mode: Enforced
";
    let problems = one(text).unwrap_err();
    let found: Vec<_> = problems
        .iter()
        .map(|problem| (problem.line.unwrap(), problem.column.unwrap(), problem.field.as_str(), problem.reason))
        .collect();
    assert_eq!(
        found,
        [
            (10, 11, "spec.subjects[0].groups[0]", "RuleViolated"),
            (13, 7, "spec.grants[0].roles", "MissingField"),
            (14, 19, "spec.grants[0].resources[0]", "RuleViolated"),
            (15, 7, "spec.grants[0].rols", "UnknownField"),
            (16, 22, "spec.grants[1].target.name", "WrongType"),
            (20, 11, "spec.grants[1].roles[1]", "RuleViolated"),
            (21, 9, "spec.mode", "ValueNotAllowed"),
        ]
    );
    assert_eq!(
        problems[6].to_string(),
        "a.yaml:21:9: spec.mode: `Enforced` is none of Enforce, Observe, Suspend (ValueNotAllowed)"
    );
}

#[test]
fn a_file_of_several_documents_is_read_one_by_one() {
    let text =
        format!("---\n{PROVIDER}---\n# only a comment\n---\n{}---\n{MAPPING}", TARGET.replace("shop-dev", "Shop"));
    let documents = parse_file("a.yaml", &text);
    assert_eq!(documents.iter().map(|document| document.index).collect::<Vec<_>>(), [0, 1, 2]);
    assert!(documents[0].result.is_ok());
    assert_eq!(documents[1].identity.as_ref().unwrap().to_string(), "CloudRunTarget Shop");
    assert!(documents[1].result.is_err());
    assert_eq!(documents[2].identity.as_ref().unwrap().to_string(), "RoleMapping checkout/checkout-team");
    assert!(documents[2].result.is_ok());
}

#[test]
fn text_that_is_not_yaml_is_reported_with_its_position_and_the_documents_before_it_are_read() {
    let documents = parse_file("a.yaml", &format!("{PROVIDER}---\nkind: [RoleMapping\nspec: x\n"));
    assert_eq!(documents.len(), 2);
    assert!(documents[0].result.is_ok());
    let problem = &documents[1].result.as_ref().unwrap_err()[0];
    assert_eq!((problem.reason, problem.field.as_str()), ("InvalidYaml", ""));
    assert!(problem.line.unwrap() >= 19, "{problem}");
    assert!(problem.to_string().starts_with("a.yaml:"), "{problem}");
}

#[test]
fn other_groups_and_kinds_are_left_out_without_a_word() {
    let text = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\nspec: {a: {b: no}}\n---\n\
        apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n---\nreplicas: 3\n---\n- a\n- b\n---\njust text\n---\n\
        apiVersion: other.example/v1\nkind: RoleMapping\nmetadata: {name: x}\n";
    assert_eq!(parse_file("a.yaml", text), []);
    assert_eq!(parse_file("a.yaml", ""), []);
    assert_eq!(parse_file("a.yaml", "# nothing\n---\n---\n"), []);
}

#[test]
fn what_is_nearly_a_manifest_of_ours_is_reported() {
    let problems = |text: &str| one(text).unwrap_err();
    assert_eq!(reasons(&problems(&MAPPING.replace("v1alpha1", "v1"))), [("apiVersion", "UnknownVersion")]);
    assert_eq!(reasons(&problems(&MAPPING.replace("RoleMapping", "RoleMaping"))), [("kind", "UnknownKind")]);
    assert_eq!(reasons(&problems(&replaced(MAPPING, "kind: RoleMapping\n", ""))), [("", "NotAManifest")]);
    assert_eq!(
        reasons(&problems(&replaced(MAPPING, "apiVersion: rolecall.dev/v1alpha1\n", ""))),
        [("", "NotAManifest")]
    );
    assert_eq!(
        reasons(&problems("apiVersion: rolecall.dev/v1alpha1\nkind: RoleMapping\n")),
        [("metadata", "MissingField"), ("spec", "MissingField")]
    );
}

#[test]
fn fields_that_the_api_server_fills_in_are_accepted_and_ignored() {
    let full = replaced(
        MAPPING,
        "  namespace: checkout\n",
        "  namespace: checkout\n  uid: 1f\n  generation: 7\n  resourceVersion: \"12\"\n  managedFields: [{a: b}]\n",
    ) + "status: {grants: {desired: 3}, whatever: 1}\n";
    let (full, plain) = (one(&full).unwrap(), one(MAPPING).unwrap());
    assert_eq!(full, plain);
    assert_eq!(full.hash(), plain.hash());
    let other = one(&replaced(MAPPING, "mode: Enforce", "mode: Observe")).unwrap();
    assert_ne!(other.hash(), plain.hash());
    let annotated = replaced(MAPPING, "spec:\n", "  annotations: {rolecall.dev/release: abc}\nspec:\n");
    assert_ne!(one(&annotated).unwrap().hash(), plain.hash());
    // Notation, order and explicit defaults do not affect the hash.
    let spelled = replaced(MAPPING, "  mode: Enforce\n  onMissing: Revert\n", "  \"onMissing\": 'Revert'\n");
    assert_eq!(one(&spelled).unwrap().hash(), plain.hash());
}

#[test]
fn lists_of_kubectl_are_split_into_items() {
    let indented = |text: &str| {
        text.lines().fold(String::new(), |mut all, line| {
            let _ = writeln!(all, "    {line}");
            all
        })
    };
    let item = |text: &str| indented(text).replacen("    ", "  - ", 1);
    let text =
        format!("apiVersion: v1\nkind: List\nitems:\n{}{}", item(PROVIDER), item(&MAPPING.replace("mode: ", "mod: ")));
    let documents = parse_file("a.yaml", &text);
    assert_eq!(documents.len(), 2);
    assert!(documents[0].result.is_ok(), "{documents:?}");
    assert_eq!(reasons(documents[1].result.as_ref().unwrap_err()), [("spec.mod", "UnknownField")]);
}

#[test]
fn a_duplicate_key_is_reported_at_its_second_position() {
    let problems = one(&replaced(MAPPING, "  mode: Enforce\n", "  mode: Enforce\n  mode: Observe\n")).unwrap_err();
    assert_eq!(reasons(&problems), [("", "DuplicateKey")]);
    assert_eq!((problems[0].line, problems[0].column), (Some(18), Some(3)));
    let json = r#"{"apiVersion": "v1", "kind": "Secret", "kind": "Secret", "metadata": {"name": "x"}}"#;
    let problems = parse_file("a.json", json).remove(0).result.unwrap_err();
    assert_eq!(reasons(&problems), [("", "DuplicateKey")]);
}

#[test]
fn json_is_read_with_tabs_and_surrogate_pairs_and_its_places() {
    let Ok(Object::RoleMapping(yaml)) = one(&replaced(MAPPING, "squad", "\"caf\u{e9} 🧾 \\\\ud83e \\\" /\"")) else {
        panic!()
    };
    let spec = serde_json::to_string_pretty(&yaml.spec).unwrap();
    let escaped = spec.replace("🧾", "\\ud83e\\uddfe").replace('é', "\\u00e9").replace('/', "\\/").replace("  ", "\t");
    let text = format!(
        "{{\n\t\"apiVersion\":\"rolecall.dev\\/v1alpha1\",\n\t\"kind\":\t\"RoleMapping\",\n\t\"metadata\": {{\"name\": \"checkout-team\", \"namespace\": \"checkout\"}},\n\t\"spec\": {escaped}\n}}\n"
    );
    let mut documents = parse_file("a.json", &text);
    assert_eq!(documents.remove(0).result, Ok(Object::RoleMapping(yaml)));

    let problems = parse_file("a.json", &text.replace("Enforce", "Observer")).remove(0).result.unwrap_err();
    assert_eq!(reasons(&problems), [("spec.mode", "ValueNotAllowed")]);
    let line = text.lines().position(|line| line.contains("Enforce")).unwrap() + 1;
    assert_eq!(problems[0].line, Some(u32::try_from(line).unwrap()));

    for wrong in ["{", "{} {}", "{\"a\": 01}", "{'a': 1}", "{\"a\": 1,}", "# no\n{}"] {
        let problems = parse_file("a.JSON", wrong).remove(0).result.unwrap_err();
        assert_eq!(problems[0].reason, "InvalidJson", "{wrong}");
    }
}

#[test]
fn anchors_and_merge_keys_are_followed() {
    let text = "apiVersion: rolecall.dev/v1alpha1
kind: CloudRunTarget
metadata: {name: shop-dev}
spec:
  project: shop-dev
  locations: &regions [europe-west1]
  allow:
    - &first
      namespaces: {names: [checkout]}
      identityProviders: [okta]
      resources: [\"services/*\"]
      roles: [roles/run.invoker]
    - <<: *first
      namespaces: {names: [other]}
";
    let Ok(Object::CloudRunTarget(target)) = one(text) else { panic!() };
    assert_eq!(target.spec.allow.len(), 2);
    assert_eq!(target.spec.allow[1].namespaces.names, ["other"]);
    assert_eq!(target.spec.allow[1].roles, ["roles/run.invoker"]);
    assert_eq!(one("a: &a [*a]\nspec: 1\n").unwrap_err()[0].reason, "InvalidYaml");
    assert_eq!(one("a: !secret x\nkind: RoleMapping\nspec: 1\n").unwrap_err()[0].reason, "UnknownTag");
}

#[test]
fn texts_without_bounds_are_refused_quickly() {
    let reason = |text: &str| one(text).unwrap_err()[0].reason;
    assert_eq!(reason(&" ".repeat(MAX_FILE_BYTES + 1)), "FileTooLarge");
    assert_eq!(reason(&"[".repeat(MAX_FILE_BYTES)), "TooDeep");
    assert_eq!(reason(&"{\"a\":".repeat(10_000)), "TooDeep");
    assert_eq!(reason(&"- ".repeat(MAX_FILE_BYTES / 2)), "TooDeep");
    assert_eq!(reason(&"- a\n".repeat(MAX_FILE_BYTES / 4)), "TooManyValues");
    assert_eq!(parse_file("a.json", &"[".repeat(10_000))[0].result.as_ref().unwrap_err()[0].reason, "InvalidJson");

    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        let _ = writeln!(bomb, "a{level}: &a{level} [{aliases}]");
    }
    assert_eq!(reason(&bomb), "TooManyValues");

    let groups: String = (0..129).fold("groups:\n".to_owned(), |mut all, number| {
        let _ = writeln!(all, "        - displayName: g{number}");
        all
    });
    let problems = one(&replaced(MAPPING, "groups: [{displayName: team-checkout}]\n", &groups)).unwrap_err();
    assert!(reasons(&problems).contains(&("spec.subjects[0].groups", "TooMany")), "{problems:?}");
}

#[test]
fn problems_are_bounded_in_number() {
    let unknown: String = (0..500).fold(MAPPING.to_owned(), |mut all, number| {
        let _ = writeln!(all, "  unknown{number}: 1");
        all
    });
    assert_eq!(one(&unknown).unwrap_err().len(), MAX_PROBLEMS);
}

#[test]
fn a_secret_is_read_and_never_shown() {
    let text = "apiVersion: v1\nkind: Secret\nmetadata: {name: okta-scim, namespace: rolecall-system}\ntype: Opaque\n\
        data: {token: aHVudGVyMg==}\nstringData: {other: \"hunter2\"}\n";
    let Ok(Object::Secret(secret)) = one(text) else { panic!() };
    assert_eq!(secret.namespace.as_deref(), Some("rolecall-system"));
    assert_eq!(secret.data["token"], b"hunter2");
    assert_eq!(secret.data["other"], b"hunter2");
    assert!(!format!("{secret:?}").contains("hunter2"), "{secret:?}");
    assert!(!format!("{secret:?}").contains("104"), "no bytes either: {secret:?}");

    for wrong in ["hunter2 !", "[hunter2]", "4711", "{a: hunter2}"] {
        let problems = one(&text.replace("aHVudGVyMg==", wrong).replace("\"hunter2\"", wrong)).unwrap_err();
        for problem in &problems {
            assert!(problem.field.starts_with("data.") || problem.field.starts_with("stringData."), "{problem}");
            assert!(!problem.to_string().contains("hunter2") && !problem.to_string().contains("4711"), "{problem}");
        }
    }
    assert!(
        matches!(one(&text.replace(", namespace: rolecall-system", "")), Ok(Object::Secret(secret)) if secret.namespace.is_none())
    );
    assert_eq!(reasons(&one(&text.replace("data: {t", "date: {t")).unwrap_err()), [("date", "UnknownField")]);
}

#[test]
fn a_token_is_hashed_without_its_line_end_and_a_hash_is_taken_as_it_is() {
    let secret = |data: &[(&str, &str)]| SecretData {
        namespace: None,
        name: "x".to_owned(),
        data: data.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec())).collect(),
    };
    let (token, short) = ("hunter2-".repeat(4), "x".repeat(31));
    let hash: [u8; 32] = Sha256::digest(&token).into();
    let hex: String = hash.iter().fold(String::new(), |mut all, byte| {
        let _ = write!(all, "{byte:02X}");
        all
    });
    assert_eq!(secret(&[("token", &format!("{token}\n"))]).token_sha256(SecretKey::Token), Ok(hash));
    assert_eq!(secret(&[("tokenSHA256", &hex)]).token_sha256(SecretKey::TokenSha256), Ok(hash));
    assert_eq!(secret(&[("tokenSHA256", &hex)]).token_sha256(SecretKey::Token), Ok(hash), "the other key is found");
    let reason = |data: &[(&str, &str)]| secret(data).token_sha256(SecretKey::Token).unwrap_err().reason();
    assert_eq!(reason(&[]), "TokenKeyNotFound");
    assert_eq!(reason(&[("token", " \n")]), "TokenInvalid");
    assert_eq!(reason(&[("token", "two words")]), "TokenInvalid");
    assert_eq!(reason(&[("token", &short)]), "TokenWeak");
    assert_eq!(reason(&[("token", &format!("{short} \n"))]), "TokenWeak", "what is around it does not count");
    assert_eq!(reason(&[("tokenSHA256", "abc")]), "TokenInvalid");
    assert_eq!(reason(&[("tokenSHA256", &"g".repeat(64))]), "TokenInvalid");
}

#[test]
fn a_client_is_an_id_and_a_secret_of_at_least_32_characters() {
    let secret = |data: &[(&str, &str)]| SecretData {
        namespace: None,
        name: "x".to_owned(),
        data: data.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec())).collect(),
    };
    let long = "hunter2-".repeat(4);
    let good = secret(&[("clientId", "rolecall\n"), ("clientSecret", &format!("{long}\n"))]);
    assert_eq!(good.client(), Ok((&b"rolecall"[..], long.as_bytes())));
    for (data, reason) in [
        (&[("clientId", "a")][..], "TokenKeyNotFound"),
        (&[("clientSecret", &*long)], "TokenKeyNotFound"),
        (&[("clientId", ""), ("clientSecret", &*long)], "TokenInvalid"),
        (&[("clientId", "a"), ("clientSecret", "two words")], "TokenInvalid"),
        (&[("clientId", "a"), ("clientSecret", "short")], "TokenWeak"),
    ] {
        assert_eq!(secret(data).client().unwrap_err().reason(), reason, "{data:?}");
    }
}

fn linted(files: &[(&str, &str)]) -> Vec<String> {
    let parsed: Vec<_> = files.iter().map(|(file, text)| (*file, parse_file(file, text))).collect();
    let report = lint(parsed.iter().map(|(file, documents)| (*file, documents.as_slice())));
    report.findings.iter().map(ToString::to_string).collect()
}

#[test]
fn linting_finds_what_does_not_fit_together() {
    assert_eq!(linted(&[("p", PROVIDER), ("t", TARGET), ("m", MAPPING)]), [] as [&str; 0]);
    let alone = linted(&[("m", MAPPING)]);
    assert_eq!(alone.len(), 2, "{alone:?}");
    assert!(
        alone[0].starts_with("warning: m:1: spec.grants[0].target.name: the CloudRunTarget `shop-dev` is not"),
        "{alone:?}"
    );
    assert!(alone[1].contains("(IdentityProviderNotFound)"), "{alone:?}");

    let twice = linted(&[("p", PROVIDER), ("t", TARGET), ("m", MAPPING), ("n", MAPPING)]);
    assert_eq!(
        twice,
        [
            "error: n:1: metadata.name: RoleMapping checkout/checkout-team is defined in m already; remove one of them (DuplicateObject)"
        ]
    );

    let plain: Vec<&str> = MAPPING.split_inclusive('\n').filter(|line| !line.contains("condition:")).collect();
    let plain = plain.concat();
    let refused = |from: &str, to: &str| linted(&[("p", PROVIDER), ("t", TARGET), ("m", &replaced(&plain, from, to))]);
    for (from, to) in [
        ("roles/run.invoker", "roles/run.admin"),
        ("services/checkout-*", "services/payment"),
        ("services/checkout-*", "jobs/*"),
        ("namespace: checkout", "namespace: payment"),
    ] {
        let found = refused(from, to);
        assert_eq!(found.len(), 1, "{to}: {found:?}");
        assert!(found[0].starts_with("warning: ") && found[0].ends_with("(NotDelegated)"), "{found:?}");
    }
    assert_eq!(refused("services/checkout-*", "services/*"), [] as [&str; 0], "a part of it is delegated");

    let everywhere = replaced(TARGET, "\"services/checkout-*\"", "\"jobs/*\"");
    let on_jobs = replaced(MAPPING, "services/checkout-*", "jobs/nightly");
    let found = linted(&[("p", PROVIDER), ("t", &everywhere), ("m", &on_jobs)]);
    assert!(found.len() == 1 && found[0].ends_with("on `jobs/nightly` (ConditionNotSupported)"), "{found:?}");
    let long = format!("\"{}\"", ["a"; 14].join(" || "));
    let found = refused("notAfter: \"2027-03-31T00:00:00Z\"", &format!("condition: {{title: x, expression: {long}}}"));
    assert!(
        found.len() == 1 && found[0].ends_with("13 logical operators; Google accepts 12 (ConditionInvalid)"),
        "{found:?}"
    );

    let overlapping = linted(&[("t", TARGET), ("u", &TARGET.replace("name: shop-dev", "name: shop-eu"))]);
    assert_eq!(overlapping.len(), 1);
    assert!(overlapping[0].ends_with("(OverlappingTarget)"), "{overlapping:?}");

    let second = PROVIDER.replace("name: okta\n", "name: entra\n").replace("okta-client", "entra-client");
    let shared = linted(&[("p", PROVIDER), ("q", &second)]);
    assert!(
        shared.len() == 1 && shared[0].starts_with("error: ") && shared[0].ends_with("(TokenShared)"),
        "{shared:?}"
    );
    let second = second.replace("okta-scim", "entra-scim");
    assert_eq!(linted(&[("p", PROVIDER), ("q", &second)]), [] as [&str; 0]);
    let secret = |name: &str| {
        format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}}}\nstringData: {{token: {}}}\n",
            "hunter2-".repeat(4)
        )
    };
    let shared = linted(&[("p", PROVIDER), ("q", &second), ("s", &secret("okta-scim")), ("u", &secret("entra-scim"))]);
    assert!(shared.len() == 1 && shared[0].ends_with("(TokenShared)"), "two Secrets with one value: {shared:?}");
    let client = |name: &str| secret(name).replace("{token: ", "{clientId: rolecall, clientSecret: ");
    let shared =
        linted(&[("p", PROVIDER), ("q", &second), ("s", &client("okta-client")), ("u", &client("entra-client"))]);
    assert!(shared.len() == 1 && shared[0].ends_with("(TokenShared)"), "two clients with one secret: {shared:?}");
    let unfit = linted(&[("p", PROVIDER), ("s", &secret("okta-client"))]);
    assert!(unfit.len() == 1 && unfit[0].ends_with("(TokenKeyNotFound)"), "{unfit:?}");
    let short = secret("okta-scim").replace(&"hunter2-".repeat(4), "hunter2");
    assert!(linted(&[("p", PROVIDER), ("s", &short)])[0].ends_with("(TokenWeak)"));
    let empty = secret("okta-scim").replace(&"hunter2-".repeat(4), "''");
    assert!(linted(&[("p", PROVIDER), ("s", &empty)])[0].ends_with("(TokenInvalid)"));
}

#[test]
fn the_examples_lint_clean() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    for (name, objects) in [("smallest", 4), ("fuller", 6)] {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(folder.join(name)).unwrap() {
            let path = entry.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            let file = path.file_name().unwrap().to_str().unwrap().to_owned();
            let documents = parse_file(&file, &text);
            files.push((file, documents));
        }
        let report = lint(files.iter().map(|(file, documents)| (file.as_str(), documents.as_slice())));
        assert_eq!(report.findings, [], "{name}");
        assert_eq!(report.objects, objects, "{name}");
    }
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in "\\PC{0,200}") {
        let _ = parse_file("a.yaml", &text);
        let _ = parse_file("a.json", &text);
    }

    #[test]
    fn a_damaged_manifest_never_panics_and_every_problem_has_words(at in 0..600usize, with in "[-:{}\\[\\]\"'&*!|>%@`#, \\n\\t0-9a-z]{0,6}") {
        for text in [PROVIDER, TARGET, MAPPING] {
            let at = at % text.len();
            let damaged = format!("{}{with}{}", &text[..at], &text[at..]);
            for document in parse_file("a.yaml", &damaged) {
                if let Err(problems) = document.result {
                    prop_assert!(!problems.is_empty());
                    prop_assert!(problems.iter().all(|problem| !problem.message.is_empty() && problem.line.is_some()));
                }
            }
        }
    }

    #[test]
    fn the_types_and_the_schema_accept_the_same(groups in prop::collection::vec("[a-zA-Z][ -~é]{0,40}", 1..6), mode in 0..3usize) {
        let mut object = mapping(MAPPING);
        object.spec.mode = [MappingMode::Enforce, MappingMode::Observe, MappingMode::Suspend][mode];
        object.spec.subjects[0].groups = groups
            .into_iter()
            .map(|name| crate::api::GroupSelector { display_name: Some(name), external_id: None })
            .collect();
        let json = serde_json::to_string(&object).unwrap();
        prop_assert_eq!(parse_file("a.json", &json).remove(0).result, Ok(Object::RoleMapping(Box::new(object))));
    }
}
