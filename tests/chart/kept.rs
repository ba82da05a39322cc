//! Objects that outlive the release: the volume and the CRDs.

use super::*;

#[test]
fn the_volume_is_kept_on_uninstall() {
    let objects = render(
        json!({ "database": { "sqlite": { "size": "20Gi", "storageClass": "fast", "annotations": { "a": "b" } } } }),
    );
    let claim = one(&objects, "PersistentVolumeClaim");
    assert_eq!(claim["metadata"]["annotations"], json!({ "helm.sh/resource-policy": "keep", "a": "b" }));
    assert_eq!(
        claim["spec"],
        json!({ "accessModes": ["ReadWriteOnce"], "storageClassName": "fast", "resources": { "requests": { "storage": "20Gi" } } })
    );
    let used = &pod_of(&objects)["volumes"][0]["persistentVolumeClaim"]["claimName"];
    assert_eq!(used, &claim["metadata"]["name"]);

    let objects = render(json!({ "database": { "sqlite": { "existingClaim": "mine" } } }));
    assert!(of_kind(&objects, "PersistentVolumeClaim").is_empty());
    assert_eq!(pod_of(&objects)["volumes"][0]["persistentVolumeClaim"]["claimName"], "mine");
}

#[test]
fn there_is_never_a_pod_disruption_budget() {
    assert!(of_kind(&render(everything()), "PodDisruptionBudget").is_empty());
}

#[test]
fn the_definitions_of_the_chart_are_those_of_the_repository() {
    let names = |folder: &str| -> BTreeSet<String> {
        let entries = fs::read_dir(root().join(folder)).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    assert_eq!(names("charts/rolecall/files/crds"), names("crds"), "run `make crds`");
    for name in names("crds") {
        let (copy, original) = (read(&format!("charts/rolecall/files/crds/{name}")), read(&format!("crds/{name}")));
        assert!(copy == original, "charts/rolecall/files/crds/{name} is stale: run `make crds`");
    }
}

#[test]
fn the_definitions_are_rendered_unchanged_and_kept_on_uninstall() {
    let objects = render(json!({}));
    let mut rendered = of_kind(&objects, "CustomResourceDefinition").len();
    for entry in fs::read_dir(root().join("crds")).unwrap() {
        let mut expected: Value = serde_saphyr::from_str(&fs::read_to_string(entry.unwrap().path()).unwrap()).unwrap();
        expected["metadata"]["annotations"] = json!({ "helm.sh/resource-policy": "keep" });
        let name = expected["metadata"]["name"].as_str().unwrap().to_owned();
        let same = named(&objects, "CustomResourceDefinition", &name) == &expected;
        assert!(same, "{name} is not rendered as it stands in crds/");
        rendered -= 1;
    }
    assert_eq!(rendered, 0);
    let objects = render(json!({ "crds": { "install": false } }));
    assert!(of_kind(&objects, "CustomResourceDefinition").is_empty());
}
