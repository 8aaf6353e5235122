//! terraform/ as it is written, read without Terraform: that it is complete, and that what it repeats from elsewhere
//! (ports, the scrape interval, uids, versions) is what stands there.
//!
//! What it does is shown by its own tests (`make check-terraform`).

use std::collections::{BTreeMap, BTreeSet};

use hcl::expr::{Traversal, TraversalOperator, Variable};
use hcl::{Block, Body, Expression};
use serde_json::Value;

use crate::needs;
use crate::project::{root, yaml};
use crate::servers::Test;

pub fn tests() -> Vec<Test> {
    vec![needs!([], terraform_is_complete_and_agrees_with_the_stack), needs!([], what_terraform_lacks_is_found)]
}

/// The files of a Terraform folder that its readers look for.
const FILES: [&str; 8] = [
    "terraform/backend.hcl.example",
    "terraform/local.tfvars",
    "terraform/main.tf",
    "terraform/outputs.tf",
    "terraform/providers.tf",
    README,
    "terraform/terraform.tf",
    "terraform/variables.tf",
];

const README: &str = "terraform/README.md";
const COMPOSE: &str = "docker-compose.yml";
const DOCKERFILE: &str = "deploy/provision/Dockerfile";
const PROMETHEUS: &str = "prometheus/prometheus.yml";
const SCRIPT: &str = "deploy/provision/provision.sh";

/// Whoever has the value of a variable or output with such a name can do something with it.
const SECRET: [&str; 5] = ["auth", "password", "secret", "token", "webhook"];

/// Files by their path, with their text.
type Tree = BTreeMap<String, String>;

/// The project's files that have a part in this.
fn project() -> Tree {
    let folders = [
        ("terraform", ""),
        ("terraform/tests", ".hcl"),
        ("grafonnet/rendered", ".json"),
        ("prometheus/rules", ".yml"),
        ("prometheus", "prometheus.yml"),
        ("deploy/provision", ""),
        (".", COMPOSE),
    ];
    let files = folders.into_iter().flat_map(|(folder, end)| {
        let entries = std::fs::read_dir(root().join(folder)).unwrap_or_else(|error| panic!("{folder}: {error}"));
        let files = entries.map(Result::unwrap).filter(move |entry| {
            entry.file_type().unwrap().is_file() && entry.file_name().to_string_lossy().ends_with(end)
        });
        files.map(move |entry| {
            let name = format!("{folder}/{}", entry.file_name().to_string_lossy());
            // A state or a plan of Terraform need not be text.
            let text = String::from_utf8_lossy(&std::fs::read(entry.path()).unwrap()).into_owned();
            (name.trim_start_matches("./").to_owned(), text)
        })
    });
    files.collect()
}

fn terraform_is_complete_and_agrees_with_the_stack() {
    assert_eq!(check(&project()), Vec::<String>::new());
}

// ---- What is looked at ----

/// Everything that is not as it should be.
fn check(tree: &Tree) -> Vec<String> {
    let mut found: Vec<_> =
        FILES.iter().filter(|file| !tree.contains_key(**file)).map(|file| format!("{file}: is missing")).collect();
    let mut folder = Folder::default();
    for (file, text) in tree {
        let tests = file.starts_with("terraform/tests/");
        if !(tests || file.starts_with("terraform/") && file.ends_with(".tf")) {
            continue;
        }
        match hcl::parse(text) {
            Ok(body) if tests => folder.tests.push(body),
            Ok(body) => drop(folder.bodies.insert(file.clone(), body)),
            Err(error) => found.push(format!("{file}: {error}")),
        }
    }
    if folder.tests.is_empty() {
        found.push("terraform/tests: there are none".to_owned());
    }
    let Some(compose) = Compose::read(&tree[COMPOSE]) else {
        return vec![format!("{COMPOSE}: is no YAML with services")];
    };
    found.extend(folder.variables());
    found.extend(folder.outputs());
    found.extend(folder.instances());
    found.extend(folder.versions(tree));
    found.extend(folder.addresses(&compose));
    found.extend(folder.uids(tree));
    found.extend(folder.local_values(tree, &compose));
    found.extend(folder.script(tree, &compose));
    found.extend(folder.readme(tree));
    found.extend(folder.runbook(tree));
    found
}

/// The .tf files, and the tests.
#[derive(Default)]
struct Folder {
    bodies: BTreeMap<String, Body>,
    tests: Vec<Body>,
}

impl Folder {
    /// The blocks of one kind in one file, in order.
    fn blocks<'a>(&'a self, file: &str, kind: &'a str) -> impl Iterator<Item = &'a Block> {
        let body = self.bodies.get(&format!("terraform/{file}"));
        body.into_iter().flat_map(Body::blocks).filter(move |block| block.identifier() == kind)
    }

    /// A variable's default as text: a string without its quotes. `None` for a variable that has none or is not there.
    fn default_of(&self, name: &str) -> Option<String> {
        let mut variables = self.blocks("variables.tf", "variable");
        attribute(variables.find(|block| label(block) == name)?, "default").map(plain)
    }

    fn variables(&self) -> Vec<String> {
        let mut found = out_of_order(self.blocks("variables.tf", "variable"));
        for variable in self.blocks("variables.tf", "variable") {
            let name = label(variable);
            let mut demand = |holds: bool, what: &str| {
                found.extend((!holds).then(|| format!("variable {name}: {what}")));
            };
            demand(attribute(variable, "type").is_some(), "no type");
            demand(described(variable), "no description that is a sentence");
            let validations: Vec<_> = blocks(variable, "validation").collect();
            let is_bool = attribute(variable, "type").map(plain).as_deref() == Some("bool");
            demand(is_bool || !validations.is_empty(), "any value is accepted");
            demand(validations.is_empty() || self.is_rejected(name), "no test shows a value that is rejected");
            for validation in validations {
                let message = attribute(validation, "error_message").map(plain).unwrap_or_default();
                demand(message.starts_with(&format!("{name} must ")), "its error does not say what is expected");
            }
            let secret = SECRET.iter().any(|word| name.contains(word));
            demand(secret == is_true(variable, "sensitive"), if secret { "is not sensitive" } else { "is no secret" });
            let known = attribute(variable, "default").map(plain);
            demand(!secret || known.is_none_or(|known| known == "null"), "a secret that everybody knows");
        }
        found
    }

    /// Whether a test expects that variable to be wrong.
    fn is_rejected(&self, name: &str) -> bool {
        let runs = self.tests.iter().flat_map(Body::blocks).filter(|block| block.identifier() == "run");
        let expected = runs.filter_map(|run| attribute(run, "expect_failures"));
        expected.map(hcl_text).any(|text| {
            let mut words = text.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == '.'));
            words.any(|word| word.strip_prefix("var.") == Some(name))
        })
    }

    fn outputs(&self) -> Vec<String> {
        let mut found = out_of_order(self.blocks("outputs.tf", "output"));
        for output in self.blocks("outputs.tf", "output") {
            let name = label(output);
            let secret = SECRET.iter().any(|word| name.contains(word));
            if !described(output) {
                found.push(format!("output {name}: no description that is a sentence"));
            }
            if secret != is_true(output, "sensitive") {
                found.push(format!("output {name}: sensitive is {}, expected {secret}", !secret));
            }
        }
        found
    }

    /// `terraform import`, and with it taking over after a lost state, cannot tell the instances of what follows from a
    /// resource that is not in the state.
    fn instances(&self) -> Vec<String> {
        let resources = self.bodies.values().flat_map(Body::blocks).filter(|block| block.identifier() == "resource");
        let wrong = resources.filter(|block| {
            let given = ["for_each", "count"].iter().find_map(|name| attribute(block, name)).map(hcl_text);
            given.is_some_and(|given| given.contains("grafana_"))
        });
        wrong
            .map(|block| format!("resource {}: its instances follow from another resource's", address(block)))
            .collect()
    }

    fn versions(&self, tree: &Tree) -> Vec<String> {
        let mut found = Vec::new();
        let settings = self.blocks("terraform.tf", "terraform").next();
        let core = settings.and_then(|block| attribute(block, "required_version")).map(plain).unwrap_or_default();
        let provider = settings.and_then(|block| blocks(block, "required_providers").next());
        let provider = provider.and_then(|block| attribute(block, "grafana")).map(members).unwrap_or_default();
        let member = |name: &str| provider.get(name).cloned().unwrap_or_default();
        if member("source") != "grafana/grafana" {
            found.push(format!("terraform.tf: the provider is {:?}", member("source")));
        }
        let dockerfile = &tree[DOCKERFILE];
        let (before, after) = dockerfile.split_once("terraform init").unwrap_or((dockerfile, ""));
        if !before.contains("terraform/.terraform.lock.hcl*") || after.is_empty() {
            found.push(format!("{DOCKERFILE}: a lock file would not be heeded"));
        }
        for (what, bounds, argument) in [
            ("Terraform", &core, "TERRAFORM_VERSION"),
            ("the provider", &member("version"), "GRAFANA_PROVIDER_VERSION"),
        ] {
            if !(bounds.contains(">=") && bounds.contains("< ")) {
                found.push(format!("terraform.tf: {what} is not bounded above and below: {bounds:?}"));
            }
            let pinned = dockerfile.lines().find_map(|line| line.strip_prefix(&format!("ARG {argument}=")));
            match pinned {
                Some(pinned) if within(pinned, bounds) => {}
                pinned => found.push(format!("{DOCKERFILE}: {argument} is {pinned:?}, terraform.tf wants {bounds:?}")),
            }
        }
        found
    }

    /// Services and their ports, as docker-compose.yml has them, and the scrape interval.
    fn addresses(&self, compose: &Compose) -> Vec<String> {
        let mut found = Vec::new();
        for (variable, service) in [("alertmanager_url", "alertmanager"), ("prometheus_url", "prometheus")] {
            let expected = compose.port(service).map(|(_, inside)| format!("http://{service}:{inside}"));
            let default = self.default_of(variable);
            if default.is_none() || default != expected {
                found.push(format!("variable {variable}: is {default:?} by default, in {COMPOSE} {expected:?}"));
            }
        }
        let (default, expected) = (self.default_of("grafana_url"), compose.grafana());
        if default.as_ref() != Some(&expected) {
            found.push(format!("variable grafana_url: is {default:?} by default, in {COMPOSE} {expected:?}"));
        }
        found
    }

    /// Other than the folder's, and each once; and the scrape interval, which dashboards count with.
    fn uids(&self, tree: &Tree) -> Vec<String> {
        let mut found = Vec::new();
        let folder = self.default_of("folder_uid");
        let mut seen = BTreeSet::new();
        for (file, text) in tree.range("grafonnet/rendered/".to_owned().."grafonnet/rendered0".to_owned()) {
            let board: Value = serde_json::from_str(text).unwrap_or_default();
            let uid = board["uid"].as_str().map(str::to_owned);
            if uid.is_none() || uid == folder || !seen.insert(uid.clone()) {
                found.push(format!("{file}: its uid is {uid:?}, which is none, the folder's or another dashboard's"));
            }
        }
        let config = yaml(&tree[PROMETHEUS]).unwrap_or_default();
        let interval = config["global"]["scrape_interval"].as_str().and_then(|text| text.strip_suffix('s'));
        let default = self.default_of("scrape_interval_seconds");
        if default.as_deref() != interval {
            found.push(format!(
                "variable scrape_interval_seconds: is {default:?} by default, in {PROMETHEUS} {interval:?}"
            ));
        }
        found
    }

    /// local.tfvars has what the stack has without settings.
    fn local_values(&self, tree: &Tree, compose: &Compose) -> Vec<String> {
        let values = tree.get("terraform/local.tfvars").and_then(|text| hcl::parse(text).ok()).unwrap_or_default();
        let given: BTreeMap<_, _> =
            values.attributes().map(|value| (value.key().to_owned(), plain(value.expr()))).collect();
        let setting = |name: &str| compose.environment("grafana", name).unwrap_or_default();
        let user = setting("GF_SECURITY_ADMIN_USER");
        let auth = format!("{user}:{}", setting("GF_SECURITY_ADMIN_PASSWORD"));
        let expected =
            BTreeMap::from([("grafana_auth".to_owned(), auth), ("grafana_url".to_owned(), compose.grafana())]);
        let wrong = given != expected;
        wrong
            .then(|| format!("terraform/local.tfvars: has {given:?}, the local stack {expected:?}"))
            .into_iter()
            .collect()
    }

    /// What provision.sh and its container say about variables and resources.
    fn script(&self, tree: &Tree, compose: &Compose) -> Vec<String> {
        let mut found = Vec::new();
        let script = &tree[SCRIPT];
        let names: BTreeSet<_> = self.blocks("variables.tf", "variable").map(label).collect();
        for (at, _) in script.match_indices("TF_VAR_") {
            let rest = &script[at + "TF_VAR_".len()..];
            let name = &rest[..rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len())];
            // In the header's prose, for all of them.
            if name.is_empty() {
                continue;
            }
            if !names.contains(name) {
                found.push(format!("{SCRIPT}: there is no variable {name}"));
            }
            let otherwise = rest[name.len()..].strip_prefix(":-").and_then(|rest| rest.split_once('}'));
            // What is repeated from another of the script's own values is no default.
            if let Some((otherwise, _)) = otherwise.filter(|(otherwise, _)| !otherwise.starts_with('$'))
                && self.default_of(name).as_deref() != Some(otherwise)
            {
                found.push(format!("{SCRIPT}: {name} is {otherwise:?}, by default {:?}", self.default_of(name)));
            }
        }
        let resources: BTreeSet<_> = self.bodies.values().flat_map(Body::blocks).map(address).collect();
        let adopted: Vec<_> = script
            .lines()
            .filter(|line| line.contains(" /api/"))
            .filter_map(|line| line.split(['[', ' ']).next())
            .collect();
        let adopted: Vec<_> = adopted.into_iter().filter(|word| word.starts_with("grafana_")).collect();
        found.extend(
            adopted
                .iter()
                .filter(|name| !resources.contains(**name))
                .map(|name| format!("{SCRIPT}: no resource {name}")),
        );
        if adopted.is_empty() {
            found.push(format!("{SCRIPT}: takes nothing over"));
        }
        for (name, value) in compose.environments("provision") {
            let Some(name) = name.strip_prefix("TF_VAR_") else { continue };
            match self.default_of(name) {
                _ if !names.contains(name) => found.push(format!("{COMPOSE}: there is no variable {name}")),
                // There Grafana is reached by another name.
                Some(default) if default != value && default != "null" && name != "grafana_url" => {
                    found.push(format!("{COMPOSE}: {name} is {value:?}, by default {default:?}"));
                }
                _ => {}
            }
        }
        found
    }

    /// The README's tables have every variable and output, in order, and the defaults.
    fn readme(&self, tree: &Tree) -> Vec<String> {
        let Some(readme) = tree.get(README) else { return Vec::new() };
        let rows = |columns: usize, first: &str| -> Vec<Vec<String>> {
            let lines = readme.lines().map(|line| line.trim().trim_matches('|').split(" | ").collect::<Vec<_>>());
            let lines = lines.map(|cells| cells.iter().map(|cell| cell.trim().replace('`', "")).collect::<Vec<_>>());
            let lines = lines.skip_while(|cells| cells.len() != columns || cells[0] != first).skip(2);
            lines.take_while(|cells| cells.len() == columns).collect()
        };
        let expected: Vec<_> = self
            .blocks("variables.tf", "variable")
            .map(|block| {
                let default = attribute(block, "default").map_or("none, must be given".to_owned(), plain);
                (label(block).to_owned(), default)
            })
            .collect();
        let said: Vec<_> = rows(3, "variable").iter().map(|row| (row[0].clone(), row[1].clone())).collect();
        let mut found = Vec::new();
        if said != expected {
            let differing = said.iter().zip(&expected).find(|(said, expected)| said != expected);
            found.push(format!(
                "{README}: its table of variables differs from variables.tf: {differing:?}, {} rows of {}",
                said.len(),
                expected.len()
            ));
        }
        let expected: Vec<_> = self.blocks("outputs.tf", "output").map(|block| label(block).to_owned()).collect();
        let said: Vec<_> = rows(2, "output").iter().map(|row| row[0].clone()).collect();
        if said != expected {
            found.push(format!("{README}: its table of outputs has {said:?}, outputs.tf {expected:?}"));
        }
        found
    }

    /// Grafana's notifications lead to the same page as those of Prometheus.
    fn runbook(&self, tree: &Tree) -> Vec<String> {
        let rules = tree.range("prometheus/rules/".to_owned().."prometheus/rules0".to_owned());
        let pages: BTreeSet<_> = rules
            .flat_map(|(_, text)| text.lines())
            .filter_map(|line| line.split_once("runbook_url")?.1.split_once("http")?.1.split_once('#'))
            .map(|(page, _)| format!("http{page}#"))
            .collect();
        let text = tree.get("terraform/notifications.tf").map_or("", String::as_str);
        let url =
            text.lines().find_map(|line| line.split_once("runbook_url")?.1.split_once('"')).map_or("", |(_, url)| url);
        let same = pages.len() == 1 && pages.iter().all(|page| url.starts_with(page));
        (!same)
            .then(|| format!("terraform/notifications.tf: leads to {url:?}, the rules to {pages:?}"))
            .into_iter()
            .collect()
    }
}

// ---- docker-compose.yml ----

/// docker-compose.yml as it is without settings.
struct Compose(Value);

impl Compose {
    fn read(text: &str) -> Option<Self> {
        let value = yaml(text).unwrap_or_default();
        value["services"].is_object().then_some(Self(value))
    }

    /// Where a service's first port is published, and what it is inside.
    fn port(&self, service: &str) -> Option<(String, String)> {
        let text = unset(self.0["services"][service]["ports"][0].as_str()?);
        let mut parts = text.rsplit(':').map(str::to_owned);
        let (inside, outside) = (parts.next()?, parts.next()?);
        Some((outside, inside))
    }

    /// Grafana's address on this machine.
    fn grafana(&self) -> String {
        format!("http://localhost:{}", self.port("grafana").map(|(outside, _)| outside).unwrap_or_default())
    }

    fn environments(&self, service: &str) -> Vec<(String, String)> {
        let environment = self.0["services"][service]["environment"].as_object();
        let environment = environment.into_iter().flatten();
        environment.map(|(name, value)| (name.clone(), unset(value.as_str().unwrap_or_default()))).collect()
    }

    fn environment(&self, service: &str, name: &str) -> Option<String> {
        self.environments(service).into_iter().find_map(|(other, value)| (other == name).then_some(value))
    }
}

/// Puts its default in each `${NAME:-default}`.
fn unset(text: &str) -> String {
    let mut parts = text.split("${");
    let mut all = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (setting, rest) = part.split_once('}').unwrap_or((part, ""));
        all += setting.split_once(":-").map_or("", |(_, default)| default);
        all += rest;
    }
    all
}

// ---- HCL ----

fn label(block: &Block) -> &str {
    block.labels().first().map_or("", |label| label.as_str())
}

/// `TYPE.NAME` of a resource.
fn address(block: &Block) -> String {
    block.labels().iter().map(|label| label.as_str()).collect::<Vec<_>>().join(".")
}

fn attribute<'a>(block: &'a Block, name: &str) -> Option<&'a Expression> {
    block.body().attributes().find(|attribute| attribute.key() == name).map(hcl::Attribute::expr)
}

fn blocks<'a>(block: &'a Block, kind: &'a str) -> impl Iterator<Item = &'a Block> {
    block.body().blocks().filter(move |inner| inner.identifier() == kind)
}

fn is_true(block: &Block, name: &str) -> bool {
    attribute(block, name) == Some(&Expression::Bool(true))
}

fn described(block: &Block) -> bool {
    attribute(block, "description").map(plain).is_some_and(|text| text.len() > 10 && text.ends_with('.'))
}

fn hcl_text(expression: &Expression) -> String {
    match expression {
        Expression::Array(items) => items.iter().map(hcl_text).collect::<Vec<_>>().join(" "),
        Expression::Traversal(traversal) => path(traversal),
        other => hcl::format::to_string(other).unwrap(),
    }
}

/// `a.b.c`; what stands in brackets is left out.
fn path(traversal: &Traversal) -> String {
    let mut path = hcl_text(&traversal.expr);
    for operator in &traversal.operators {
        if let TraversalOperator::GetAttr(name) = operator {
            path += &format!(".{}", Variable::from(name.clone()).as_str());
        }
    }
    path
}

/// An expression's text; a string without its quotes.
fn plain(expression: &Expression) -> String {
    match expression {
        Expression::String(text) => text.clone(),
        Expression::TemplateExpr(template) => template.to_string().trim_matches('"').to_owned(),
        other => hcl_text(other),
    }
}

/// An object's members as text.
fn members(expression: &Expression) -> BTreeMap<String, String> {
    let Expression::Object(object) = expression else { return BTreeMap::new() };
    object.iter().map(|(key, value)| (key.to_string(), plain(value))).collect()
}

fn out_of_order<'a>(blocks: impl Iterator<Item = &'a Block>) -> Vec<String> {
    let names: Vec<_> = blocks.map(label).collect();
    let wrong = names.windows(2).filter(|pair| pair[0] >= pair[1]);
    let mut found: Vec<_> = wrong.map(|pair| format!("{} stands after {}", pair[1], pair[0])).collect();
    if names.is_empty() {
        found.push("there are no variables, or no outputs".to_owned());
    }
    found
}

/// Whether a version fulfils a constraint such as `>= 4.0.0, < 5.0.0`.
fn within(version: &str, bounds: &str) -> bool {
    let numbers = |text: &str| text.split('.').map(|part| part.trim().parse().ok()).collect::<Option<Vec<u32>>>();
    let Some(version) = numbers(version) else { return false };
    bounds.split(',').all(|bound| {
        let (comparison, limit) = bound.trim().split_once(' ').unwrap_or(("", bound));
        match (comparison, numbers(limit)) {
            (">=", Some(limit)) => version >= limit,
            ("<", Some(limit)) => version < limit,
            _ => false,
        }
    })
}

// ---- That faults are found ----

/// A fault: the file, what stands there, what stands there instead, and how the first finding begins.
type Fault = (&'static str, &'static str, &'static str, &'static str);

const FAULTS: [Fault; 39] = [
    ("terraform/variables.tf", "  type        = bool\n", "", "variable prometheus_is_default: no type"),
    (
        "terraform/variables.tf",
        "  description = \"Title of the folder that the dashboards are in.\"\n",
        "",
        "variable folder_title: no description",
    ),
    (
        "terraform/variables.tf",
        "\"UID of the Alertmanager data source.\"",
        "\"\"",
        "variable alertmanager_uid: no description",
    ),
    (
        "terraform/variables.tf",
        "  sensitive   = true\n  nullable    = false\n",
        "  nullable    = false\n",
        "variable grafana_auth: is not sensitive",
    ),
    (
        "terraform/variables.tf",
        "  sensitive   = true\n  nullable    = false\n",
        "  default     = \"admin:admin\"\n  sensitive   = true\n  nullable    = false\n",
        "variable grafana_auth: a secret that everybody knows",
    ),
    (
        "terraform/variables.tf",
        "  default     = \"API Monitoring\"\n",
        "  default     = \"API Monitoring\"\n  sensitive   = true\n",
        "variable folder_title: is no secret",
    ),
    (
        "terraform/variables.tf",
        "\"folder_title must not be empty or blank.\"",
        "\"It is wrong.\"",
        "variable folder_title: its error",
    ),
    (
        "terraform/variables.tf",
        "variable \"grafana_url\"",
        "variable \"a_url\"",
        "a_url stands after grafana_public_url",
    ),
    (
        "terraform/variables.tf",
        "variable \"service_account_name\" {",
        "variable \"zone\" {\n  description = \"The zone of everything.\"\n  type = string\n}\n\nvariable \"service_account_name\" {",
        "service_account_name stands after zone",
    ),
    (
        "terraform/variables.tf",
        "variable \"service_account_name\" {",
        "variable \"series_limit\" {
  description = \"How many series are too many.\"
  type        = number
  default     = 1

  validation {
    condition     = var.series_limit > 0
    error_message = \"series_limit must be positive.\"
  }
}

variable \"service_account_name\" {",
        "variable series_limit: no test",
    ),
    (
        "terraform/variables.tf",
        "type        = bool",
        "type        = string",
        "variable prometheus_is_default: any value is accepted",
    ),
    ("terraform/outputs.tf", "  sensitive   = true\n", "", "output service_account_token: sensitive is false"),
    (
        "terraform/outputs.tf",
        "  description = \"Address of each dashboard, by uid.\"\n",
        "",
        "output dashboard_urls: no description",
    ),
    ("terraform/outputs.tf", "output \"dashboard_urls\"", "output \"urls\"", "folder_url stands after urls"),
    (
        "terraform/main.tf",
        "for_each = local.dashboards",
        "for_each = grafana_folder.this",
        "resource grafana_dashboard.this: its instances",
    ),
    (
        "terraform/notifications.tf",
        "\"grafana_rule_group\" \"this\" {\n  for_each = local.notifications",
        "\"grafana_rule_group\" \"this\" {\n  for_each = grafana_contact_point.this",
        "resource grafana_rule_group.this: its instances",
    ),
    ("terraform/terraform.tf", ">= 4.0.0, < 5.0.0", ">= 4.0.0", "terraform.tf: the provider is not bounded"),
    ("terraform/terraform.tf", ">= 1.7.0, < 2.0.0", "< 2.0.0", "terraform.tf: Terraform is not bounded"),
    (
        "terraform/terraform.tf",
        ">= 4.0.0, < 5.0.0",
        ">= 4.46.0, < 5.0.0",
        "deploy/provision/Dockerfile: GRAFANA_PROVIDER_VERSION is Some(\"4.45.1\")",
    ),
    (
        DOCKERFILE,
        "ARG GRAFANA_PROVIDER_VERSION=4.45.1",
        "ARG GRAFANA_PROVIDER_VERSION=5.0.0",
        "deploy/provision/Dockerfile: GRAFANA_PROVIDER_VERSION is Some(\"5.0.0\")",
    ),
    (
        DOCKERFILE,
        "ARG TERRAFORM_VERSION=1.11.4",
        "ARG TERRAFORM_VERSION=1.6.6",
        "deploy/provision/Dockerfile: TERRAFORM_VERSION is Some(\"1.6.6\")",
    ),
    (DOCKERFILE, " terraform/.terraform.lock.hcl*", "", "deploy/provision/Dockerfile: a lock file"),
    ("terraform/terraform.tf", "\"grafana/grafana\"", "\"grafana/grafan\"", "terraform.tf: the provider is"),
    (
        "terraform/variables.tf",
        "= \"http://prometheus:9090\"\n",
        "= \"http://prometheus:9000\"\n",
        "variable prometheus_url: is",
    ),
    (
        "terraform/variables.tf",
        "= \"http://localhost:3000\"\n",
        "= \"http://localhost:3001\"\n",
        "variable grafana_url: is",
    ),
    (PROMETHEUS, "scrape_interval: 15s", "scrape_interval: 30s", "variable scrape_interval_seconds: is Some(\"15\")"),
    (
        "grafonnet/rendered/batch-jobs.json",
        "\"uid\": \"batch-jobs\"",
        "\"uid\": \"api-monitoring-folder\"",
        "grafonnet/rendered/batch-jobs.json: its uid",
    ),
    (
        "grafonnet/rendered/batch-jobs.json",
        "\"uid\": \"batch-jobs\"",
        "\"uid\": \"api-slo\"",
        "grafonnet/rendered/batch-jobs.json: its uid",
    ),
    ("terraform/local.tfvars", "\"admin:admin\"", "\"admin:grafana\"", "terraform/local.tfvars: has"),
    (
        COMPOSE,
        "GF_SECURITY_ADMIN_PASSWORD: ${GRAFANA_ADMIN_PASSWORD:-admin}",
        "GF_SECURITY_ADMIN_PASSWORD: ${GRAFANA_ADMIN_PASSWORD:-grafana}",
        "terraform/local.tfvars: has",
    ),
    (
        SCRIPT,
        "${TF_VAR_folder_uid:-api-monitoring-folder}",
        "${TF_VAR_folder_uid:-api-monitoring}",
        "deploy/provision/provision.sh: folder_uid is",
    ),
    (SCRIPT, "${TF_VAR_prometheus_uid:-", "${TF_VAR_prom_uid:-", "deploy/provision/provision.sh: there is no variable"),
    (
        SCRIPT,
        "grafana_data_source.prometheus /api",
        "grafana_data_source.prom /api",
        "deploy/provision/provision.sh: no resource grafana_data_source.prom",
    ),
    (COMPOSE, "TF_VAR_prometheus_url:", "TF_VAR_prom_url:", "docker-compose.yml: there is no variable prom_url"),
    (
        COMPOSE,
        "TF_VAR_alertmanager_url: http://alertmanager:9093",
        "TF_VAR_alertmanager_url: http://alertmanager:9094",
        "docker-compose.yml: alertmanager_url is",
    ),
    (README, "| `15` |", "| `10` |", "terraform/README.md: its table of variables"),
    (README, "| `folder_url` |", "| `folder` |", "terraform/README.md: its table of outputs"),
    (
        "terraform/notifications.tf",
        "blob/main/docs/runbook.md#",
        "blob/main/runbook.md#",
        "terraform/notifications.tf: leads to",
    ),
    ("terraform/main.tf", "resource \"grafana_folder\" \"this\" {", "resource {{", "terraform/main.tf: "),
];

fn what_terraform_lacks_is_found() {
    let good = project();
    let mut wrong = Vec::new();
    for (file, from, to, expected) in FAULTS {
        let mut tree = good.clone();
        let text = tree.get_mut(file).unwrap();
        assert_eq!(text.matches(from).count(), 1, "{from:?} in {file}");
        *text = text.replace(from, to);
        let found = check(&tree);
        if !found.first().is_some_and(|first| first.starts_with(expected)) {
            wrong.push(format!("{file}: {to:?}\n  found    {found:#?}\n  expected {expected:?}"));
        }
    }
    for file in FILES {
        let mut tree = good.clone();
        tree.remove(file);
        if !check(&tree).contains(&format!("{file}: is missing")) {
            wrong.push(format!("{file} is not missed"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
