//! The notes shown after the installation.

use super::*;

/// The rendered NOTES.txt. `helm template` omits it, so it is put into an object first.
fn notes(values: Value) -> String {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("rolecall");
    fs::create_dir_all(copy.join("templates")).unwrap();
    for file in ["Chart.yaml", "values.yaml", "values.schema.json", "templates/_helpers.tpl"] {
        fs::copy(chart().join(file), copy.join(file)).unwrap();
    }
    let text = read("charts/rolecall/templates/NOTES.txt");
    let object = format!(
        "{{{{- define \"notes\" }}}}{text}{{{{ end }}}}\nkind: Notes\ntext: {{{{ include \"notes\" . | toJson }}}}\n"
    );
    fs::write(copy.join("templates/notes.yaml"), object).unwrap();
    let objects = template(&copy, &with(values)).unwrap_or_else(|error| panic!("{error}"));
    one(&objects, "Notes")["text"].as_str().unwrap().to_owned()
}

#[test]
fn the_notes_have_the_next_three_steps() {
    let said = notes(json!({ "secrets": ["entra-scim"] }));
    for step in [
        "1. Create the token",
        "kubectl -n rolecall-system create secret generic entra-scim",
        "2. Apply an IdentityProvider",
        "3. Apply a CloudRunTarget and a RoleMapping",
        "exec deploy/rolecall -- /rolecall status",
        "/rolecall uninstall --revoke",
    ] {
        assert!(said.contains(step), "{step}:\n{said}");
    }
}

#[test]
fn the_notes_warn_of_what_is_probably_not_meant_and_of_nothing_else() {
    let warnings = |values| notes(values).matches("WARNING: ").count();
    assert_eq!(warnings(json!({})), 4);
    let good = json!({ "mode": "enforce", "externalUrl": "https://a.b", "secrets": ["okta-scim"],
        "networkPolicy": { "enabled": true } });
    assert_eq!(warnings(good.clone()), 0);
    for (bad, word) in [
        (json!({ "mode": "observe" }), "mode is observe"),
        (json!({ "externalUrl": "" }), "externalUrl is not set"),
        (json!({ "externalUrl": "http://a.b" }), "externalUrl is not HTTPS"),
        (json!({ "secrets": null }), "secrets is empty"),
        (json!({ "networkPolicy": { "enabled": false } }), "networkPolicy is off"),
    ] {
        let mut values = good.clone();
        merge(&mut values, bad);
        let said = notes(values);
        assert!(said.contains(&format!("WARNING: {word}")), "{word}:\n{said}");
        assert_eq!(said.matches("WARNING: ").count(), 1, "{said}");
    }
}
