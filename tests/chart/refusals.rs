//! Refused values and their messages.

use super::*;

#[test]
fn helm_lint_has_nothing_to_say() {
    for values in [with(json!({})), everything()] {
        let said = run(&["lint", "--strict"], &chart(), &values).unwrap_or_else(|error| panic!("{error}"));
        assert!(said.contains("0 chart(s) failed"), "{said}");
    }
}

#[test]
fn mode_is_required_and_has_no_default() {
    for values in [json!({}), json!({ "mode": null }), json!({ "mode": "Enforce" })] {
        let error = template(&chart(), &values).expect_err("no mode");
        assert!(error.contains("mode"), "{error}");
    }
    let error = template(&chart(), &json!({})).unwrap_err();
    assert!(error.contains("value must be one of 'observe', 'enforce'"), "{error}");
}

#[test]
fn two_replicas_are_refused_with_the_reason() {
    let error = refusal(json!({ "replicas": 2 }));
    assert!(error.contains("replicas: 2 is not possible with SQLite: its one file has one writer"), "{error}");
    assert_eq!(one(&render(json!({ "replicas": 0 })), "Deployment")["spec"]["replicas"], 0);
}

#[test]
fn what_no_schema_can_express_is_refused_with_the_reason() {
    for (values, reason) in [
        (json!({ "ports": { "scim": 8081 } }), "ports: scim and admin are both 8081"),
        (json!({ "ports": { "probe": 8081 } }), "ports: probe is 8081, which is the port of scim or admin"),
        (json!({ "google": { "endpoint": "http://emulator.test" } }), "adc is sent to https://*.googleapis.com only"),
        (json!({ "google": { "endpoint": "https://evil.test/.googleapis.com" } }), "adc is sent to"),
        (json!({ "ingress": { "enabled": true } }), "ingress.hosts: is empty"),
        (json!({ "httpRoute": { "enabled": true } }), "httpRoute.parentRefs: is empty"),
        (json!({ "serviceAccount": { "create": false } }), "serviceAccount.name: is empty"),
    ] {
        let error = refusal(values);
        assert!(error.contains(reason), "{error}");
    }
    render(json!({ "google": { "endpoint": "https://europe-west1-run.googleapis.com" } }));
    render(json!({ "serviceAccount": { "create": false, "name": "mine" } }));
}

/// The rules of the schema: path, keyword, message.
fn rules(schema: &Value, at: &str, found: &mut Vec<(String, String, Value)>) {
    for keyword in
        ["pattern", "enum", "minimum", "maximum", "minLength", "maxLength", "uniqueItems", "not", "required", "type"]
    {
        if let Some(rule) = schema.get(keyword) {
            found.push((at.to_owned(), keyword.to_owned(), rule.clone()));
        }
    }
    match schema.get("additionalProperties") {
        Some(Value::Bool(false)) => found.push((at.to_owned(), "additionalProperties".to_owned(), json!(false))),
        Some(Value::Object(_)) => rules(&schema["additionalProperties"], &format!("{at}/any"), found),
        _ => {}
    }
    for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
        rules(schema, &format!("{at}/{name}"), found);
    }
    if schema["items"].is_object() {
        rules(&schema["items"], &format!("{at}/0"), found);
    }
}

/// A value that violates a rule, for the rules without one of their own.
fn bad_value(at: &str, keyword: &str) -> Value {
    match (at, keyword) {
        ("/externalUrl" | "/google/endpoint", "pattern") => json!("rolecall.example.com"),
        ("/secrets/0" | "/imagePullSecrets/0/name" | "/serviceAccount/name", "pattern") => json!("Okta_SCIM"),
        ("/secrets", "uniqueItems") => json!(["okta", "okta"]),
        ("/driftInterval" | "/finalizerDeadline" | "/maxCapture", "pattern") => json!("5 fortnights"),
        ("/serviceMonitor/interval" | "/serviceMonitor/scrapeTimeout", "pattern") => json!("30"),
        ("/image/repository", "pattern") => json!("ghcr.io/rolecall/rolecall:latest"),
        ("/image/tag", "pattern") => json!("a b"),
        ("/image/digest", "pattern") => json!("sha256:abc"),
        ("/nameOverride" | "/fullnameOverride", "pattern") => json!("Role Call"),
        ("/database/sqlite/path", "pattern") => json!("/rolecall.db"),
        ("/database/sqlite/size", "pattern") => json!("much"),
        ("/listenAddress", "pattern") => json!("localhost"),
        ("/ingress/hosts/0" | "/ingress/tls/0/hosts/0" | "/httpRoute/hostnames/0", "pattern") => json!("https://a.b"),
        ("/prometheusRule/runbookUrl", "pattern") => json!("https://a.b/#c"),
        ("/extraEnv/0/name", "not") => json!("ROLECALL_MODE"),
        _ => panic!("no bad value for {keyword} at {at}: every rule has a refusing case"),
    }
}

/// Values with `value` at this path.
fn placed(at: &str, value: Value) -> Value {
    at.rsplit('/').filter(|part| !part.is_empty()).fold(value, |value, part| match part {
        "0" => json!([value]),
        name => Value::Object(Map::from_iter([(name.to_owned(), value)])),
    })
}

/// Values that violate many rules at once, none of which hides another: Helm lists every error with its path.
#[derive(Default)]
struct Batch {
    values: Value,
    cases: Vec<(String, String)>,
}

impl Batch {
    /// True when this path can be given a value besides those that have one. An array has one item.
    fn has_room(&self, at: &str) -> bool {
        let whole = |at: &str| format!("{}/", at.split("/0").next().unwrap());
        let new = whole(at);
        self.cases.iter().map(|(_, at)| whole(at)).all(|old| !old.starts_with(&new) && !new.starts_with(&old))
    }
}

#[test]
fn every_rule_of_the_schema_refuses() {
    let schema: Value = serde_json::from_str(&read("charts/rolecall/values.schema.json")).unwrap();
    let mut all = Vec::new();
    rules(&schema, "", &mut all);
    assert!(all.len() > 100, "only {} rules were found", all.len());
    let mut batches: Vec<Batch> = Vec::new();
    for (at, keyword, rule) in all {
        let value = match (keyword.as_str(), &rule) {
            ("required", _) if at.is_empty() => json!({ "mode": null }),
            ("type", _) if at.is_empty() => continue, // Helm itself refuses values that are no map
            ("required", _) => json!({}),
            ("type", Value::String(name)) if name == "string" => json!(7),
            ("type", _) => json!("text"),
            ("enum", _) => json!("nonsense"),
            ("minimum", rule) => json!(rule.as_i64().unwrap() - 1),
            ("maximum", rule) => json!(rule.as_i64().unwrap() + 1),
            ("minLength", _) => json!(""),
            ("maxLength", rule) => json!("a".repeat(usize::try_from(rule.as_u64().unwrap()).unwrap() + 1)),
            ("additionalProperties", _) => json!({ "unheardOf": 1 }),
            (keyword, _) => bad_value(&at, keyword),
        };
        let at_batch = batches.iter().position(|batch| batch.has_room(&at)).unwrap_or(batches.len());
        if at_batch == batches.len() {
            batches.push(Batch { values: with(json!({})), ..Batch::default() });
        }
        merge(&mut batches[at_batch].values, placed(&at, value));
        batches[at_batch].cases.push((keyword, at));
    }
    let mut problems = Vec::new();
    for batch in batches {
        match template(&chart(), &batch.values) {
            Ok(_) => problems.push(format!("accepted: {:?}", batch.cases)),
            Err(error) => {
                let silent = batch.cases.iter().filter(|(_, at)| !error.contains(&format!("at '{at}'")));
                problems.extend(silent.map(|(keyword, at)| format!("{keyword} at {at} is not refused in:\n{error}")));
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn the_schema_explains_the_rules_that_a_person_would_question() {
    let schema: Value = serde_json::from_str(&read("charts/rolecall/values.schema.json")).unwrap();
    for (pointer, reason) in [
        ("/properties/mode", "you decide whether people get and lose access"),
        ("/properties/replicas", "the file has one writer"),
        ("/properties/replicas", "no PodDisruptionBudget"),
        ("/properties/secrets", "it has no permission for any other"),
        ("/properties/database/properties/sqlite/properties/accessMode", "SQLite's locks"),
    ] {
        let says = schema.pointer(pointer).unwrap()["description"].as_str().unwrap();
        assert!(says.contains(reason), "{pointer}: {says}");
    }
}

#[test]
fn every_default_value_is_known_to_the_schema() {
    fn unknown(values: &Value, schema: &Value, at: &str, found: &mut Vec<String>) {
        let Some(properties) = schema["properties"].as_object() else { return };
        for (name, value) in values.as_object().into_iter().flatten() {
            match properties.get(name) {
                Some(schema) => unknown(value, schema, &format!("{at}/{name}"), found),
                None => found.push(format!("{at}/{name}")),
            }
        }
        for name in properties.keys().filter(|name| values.get(name.as_str()).is_none()) {
            found.push(format!("{at}/{name} has no line in values.yaml"));
        }
    }
    let values: Value = serde_saphyr::from_str(&read("charts/rolecall/values.yaml")).unwrap();
    let schema: Value = serde_json::from_str(&read("charts/rolecall/values.schema.json")).unwrap();
    let mut found = Vec::new();
    unknown(&values, &schema, "", &mut found);
    assert_eq!(found, ["/resources/claims has no line in values.yaml", "/global has no line in values.yaml"]);
}
