//! Which requests `load` sends: a seeded random mix over all operations, with faults and unknown paths.
//!
//! The same seed plans the same requests in the same order, whatever the server answers. `/metrics` is left out: the
//! service does not count scrapes, and this traffic is there to be counted.

use http::Method;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;

use crate::api::problem::BODY_MAX_BYTES;
use crate::api::surface::{self, Operation};
use crate::metrics::names::{METHODS, OTHER_METHOD, UNMATCHED};

/// Ids asked for: small enough that a run meets users that it created itself, and others that are absent.
const IDS: std::ops::RangeInclusive<u32> = 1..=200;

/// A request to be sent, with the labels under which the service records it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// What to send.
    pub method: Method,
    /// Path and query.
    pub path: String,
    /// Content type and body.
    pub body: Option<(&'static str, Vec<u8>)>,
    /// The `route` label.
    pub route: &'static str,
}

impl Planned {
    /// The `method` label.
    #[must_use]
    pub fn method_label(&self) -> &'static str {
        METHODS.iter().find(|known| **known == self.method.as_str()).unwrap_or(&OTHER_METHOD)
    }

    fn to(operation: &Operation, path: impl Into<String>) -> Self {
        Self { method: operation.method.clone(), path: path.into(), body: None, route: operation.template }
    }

    fn with(mut self, content_type: &'static str, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some((content_type, body.into()));
        self
    }

    fn by(mut self, method: Method) -> Self {
        self.method = method;
        self
    }
}

/// An endless plan.
#[derive(Debug)]
pub struct Mix {
    rng: StdRng,
    total_weight: u32,
}

type Plan = fn(&mut StdRng) -> Planned;

/// Every kind of request with its weight. Each kind of fault is sent now and then.
const PLANS: &[(u32, Plan)] = &[
    (200, |rng| Planned::to(&surface::GET_USER, user_path(rng))),
    (80, |rng| {
        let (limit, after) = (rng.random_range(1..=50), rng.random_range(0..=200));
        Planned::to(&surface::LIST_USERS, format!("/api/users?limit={limit}&after={after}"))
    }),
    (10, |_| Planned::to(&surface::LIST_USERS, "/api/users")),
    (90, |rng| {
        let user = json!({"name": name(rng), "email": email(rng)});
        Planned::to(&surface::CREATE_USER, "/api/users").with(JSON, user.to_string())
    }),
    (30, |rng| {
        Planned::to(&surface::CREATE_USER, format!("/api/users?name=User%20{}&email={}", number(rng), email(rng)))
    }),
    (50, |rng| Planned::to(&surface::UPDATE_USER, user_path(rng)).with(JSON, json!({"name": name(rng)}).to_string())),
    (20, |rng| {
        let path = user_path(rng);
        Planned::to(&surface::UPDATE_USER, format!("{path}?email={}", email(rng)))
    }),
    (40, |rng| Planned::to(&surface::DELETE_USER, user_path(rng))),
    (30, |_| Planned::to(&surface::HEALTH, "/health")),
    (20, |_| Planned::to(&surface::READY, "/ready")),
    (15, |_| Planned::to(&surface::SLOW, "/api/slow")),
    (15, |_| Planned::to(&surface::ERROR, "/api/error")),
    (15, |rng| Planned::to(&surface::UPDATE, format!("/update?users={}", number(rng)))),
    (15, |rng| Planned::to(&surface::CPU, format!("/cpu?value={}", f64::from(rng.random_range(0..=1000)) / 10.0))),
    (5, |_| Planned::to(&surface::LANDING, "/")),
    (5, |_| Planned::to(&surface::DOCS, "/docs")),
    (5, |_| Planned::to(&surface::DOCS_FILE, "/docs/index.css")),
    (5, |_| Planned::to(&surface::OPENAPI, "/openapi.json")),
    (10, |_| Planned::to(&surface::HEALTH, "/health").by(Method::HEAD)),
    (10, |_| Planned::to(&surface::LIST_USERS, "/api/users?limit=10").by(Method::HEAD)),
    // Faults.
    (8, |_| Planned::to(&surface::GET_USER, "/api/users/abc")),
    (8, |_| Planned::to(&surface::LIST_USERS, "/api/users?limit=0")),
    (8, |_| Planned::to(&surface::LIST_USERS, "/api/users?after=%zz")),
    (8, |rng| Planned::to(&surface::CREATE_USER, "/api/users").with(JSON, json!({"name": name(rng)}).to_string())),
    (8, |_| Planned::to(&surface::CREATE_USER, "/api/users").with(JSON, "{\"name\": ")),
    (8, |rng| Planned::to(&surface::CREATE_USER, "/api/users").with("text/plain", name(rng))),
    (4, |_| Planned::to(&surface::CREATE_USER, "/api/users").with(JSON, vec![b' '; BODY_MAX_BYTES + 1])),
    (8, |rng| Planned::to(&surface::UPDATE_USER, user_path(rng))),
    (4, |_| Planned::to(&surface::UPDATE, "/update?users=-1")),
    (4, |_| Planned::to(&surface::CPU, "/cpu?value=101")),
    (4, |_| Planned::to(&surface::DOCS_FILE, "/docs/nothing.js")),
    (8, |_| Planned::to(&surface::LIST_USERS, "/api/users").by(Method::PATCH)),
    (4, |_| Planned::to(&surface::HEALTH, "/health").by(Method::POST)),
    (4, |rng| Planned::to(&surface::GET_USER, user_path(rng)).by(foreign_method())),
    (15, |rng| unknown_path(rng, Method::GET)),
    (4, |rng| unknown_path(rng, Method::POST)),
    (4, |rng| unknown_path(rng, foreign_method())),
];

const JSON: &str = "application/json";

impl Mix {
    /// The plan of a seed.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self { rng: StdRng::seed_from_u64(seed), total_weight: PLANS.iter().map(|(weight, _)| weight).sum() }
    }
}

impl Iterator for Mix {
    type Item = Planned;

    fn next(&mut self) -> Option<Planned> {
        let mut drawn = self.rng.random_range(0..self.total_weight);
        let (_, plan) = PLANS.iter().find(|(weight, _)| {
            let chosen = drawn < *weight;
            drawn = drawn.saturating_sub(*weight);
            chosen
        })?;
        Some(plan(&mut self.rng))
    }
}

fn user_path(rng: &mut StdRng) -> String {
    surface::GET_USER.template.replace("{id}", &rng.random_range(IDS).to_string())
}

fn number(rng: &mut StdRng) -> u32 {
    rng.random_range(0..1_000_000)
}

fn name(rng: &mut StdRng) -> String {
    let first = ["Ada", "Grace", "Łukasz", "李娜", "Σωκράτης", "Zoë"][rng.random_range(0..6)];
    format!("{first} {}", number(rng))
}

fn email(rng: &mut StdRng) -> String {
    format!("user{}@example.com", number(rng))
}

fn unknown_path(rng: &mut StdRng, method: Method) -> Planned {
    Planned { method, path: format!("/unknown/{:x}", rng.random::<u64>()), body: None, route: UNMATCHED }
}

/// A method that no standard knows.
fn foreign_method() -> Method {
    Method::from_bytes(b"FOO").expect("letters make a method")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::surface::OPERATIONS;

    #[test]
    fn the_same_seed_plans_the_same_requests() {
        let plan = |seed| Mix::seeded(seed).take(1000).collect::<Vec<_>>();

        assert_eq!(plan(1), plan(1));
        assert_ne!(plan(1), plan(2));
    }

    #[test]
    fn every_operation_but_the_scrape_is_in_the_mix() {
        let plan: Vec<_> = Mix::seeded(1).take(5000).collect();
        for operation in OPERATIONS {
            let planned =
                plan.iter().any(|request| request.method == operation.method && request.route == operation.template);
            assert_eq!(planned, operation.template != surface::METRICS.template, "{}", operation.id);
        }
    }

    #[test]
    fn the_labels_are_those_of_the_route_table() {
        let table = surface::route_table();
        for request in Mix::seeded(1).take(5000) {
            let path = request.path.split('?').next().unwrap();
            assert_eq!(table.resolve(path), request.route, "{path}");
        }
    }
}
