//! What the running services answer over HTTP.

use std::collections::BTreeMap;

use reqwest::{Client, RequestBuilder, StatusCode};
use serde_json::{Value, json};

use super::dashboards::{Dashboard, Target, View};
use super::within;
use crate::support::{Answer, client, in_time};

/// Why an answer is not the one that was hoped for; it may still come.
pub type Hope<T> = Result<T, String>;

/// Series and their values.
pub type Vector = Vec<(BTreeMap<String, String>, f64)>;

/// One service's API.
pub struct Web {
    base: String,
    client: Client,
    login: Option<(&'static str, &'static str)>,
}

impl Web {
    pub fn at(base: String) -> Self {
        Self { base, client: client(), login: None }
    }

    pub fn with_login(self, user: &'static str, password: &'static str) -> Self {
        Self { login: Some((user, password)), ..self }
    }

    pub async fn get(&self, path: &str) -> Answer {
        in_time(path, Answer::to(self.signed(self.client.get(self.url(path))))).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        in_time(path, Answer::to(self.signed(self.client.post(self.url(path)).json(body)))).await
    }

    /// The JSON of an answer that must be 200.
    pub async fn json(&self, path: &str) -> Value {
        let answer = self.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    fn signed(&self, request: RequestBuilder) -> RequestBuilder {
        match self.login {
            Some((user, password)) => request.basic_auth(user, Some(password)),
            None => request,
        }
    }
}

pub struct Prometheus(pub Web);

impl Prometheus {
    /// The `data` of what one of its API's paths answers.
    pub async fn ask(&self, question: &str) -> Value {
        let mut answer = self.0.json(&format!("/api/v1/{question}")).await;
        assert_eq!(answer["status"], "success", "{question}: {answer}");
        answer["data"].take()
    }

    pub async fn query(&self, promql: &str) -> Vector {
        vector(&self.evaluate("query", &[("query", promql)]).await.unwrap_or_else(|error| panic!("{error}")))
    }

    /// A query of a moment, in Unix seconds.
    pub async fn query_at(&self, promql: &str, moment: f64) -> Vector {
        let parameters = [("query", promql), ("time", &moment.to_string())];
        vector(&self.evaluate("query", &parameters).await.unwrap_or_else(|error| panic!("{error}")))
    }

    /// Waits until a query gives exactly one series with this value.
    pub async fn shows(&self, promql: &str, expected: f64) {
        within(super::SCRAPED, promql, async || match &self.query(promql).await[..] {
            [(_, value)] if *value == expected => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
    }

    async fn evaluate(&self, kind: &str, parameters: &[(&str, &str)]) -> Hope<Value> {
        let request = self.0.client.get(self.0.url(&format!("/api/v1/{kind}"))).query(parameters);
        let mut answer = in_time(kind, Answer::to(request)).await.json();
        if answer["status"] == "success" { Ok(answer["data"].take()) } else { Err(format!("{parameters:?}: {answer}")) }
    }
}

fn vector(data: &Value) -> Vector {
    assert_eq!(data["resultType"], "vector", "{data}");
    let series = data["result"].as_array().unwrap().iter();
    let value = |one: &Value| one["value"][1].as_str().unwrap().parse().unwrap();
    series.map(|one| (serde_json::from_value(one["metric"].clone()).unwrap(), value(one))).collect()
}

/// Who answers the dashboards' queries.
pub enum Asked<'a> {
    /// Grafana, through the data source of this uid.
    Grafana(&'a Web, &'a str),
    Prometheus(&'a Prometheus),
}

impl Asked<'_> {
    /// How many numbers a panel's query gives, as the dashboard is when it is opened; an error is none.
    pub async fn numbers(&self, dashboard: &Dashboard, target: &Target) -> Hope<usize> {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        let timing = target.timing(View { from: now - dashboard.range, to: now });
        let promql = dashboard.fill_in(&target.expr, &dashboard.opened(), &timing);
        let (from, to) = if target.instant { (now - dashboard.range, now) } else { (timing.start, timing.end) };
        match self {
            Self::Grafana(grafana, uid) => {
                let query = json!({
                    "from": ((from * 1000.0) as i64).to_string(),
                    "to": ((to * 1000.0) as i64).to_string(),
                    "queries": [{
                        "refId": target.ref_id,
                        "datasource": {"type": "prometheus", "uid": uid},
                        "expr": promql,
                        "instant": target.instant,
                        "range": !target.instant,
                        "format": target.format.as_deref().unwrap_or("time_series"),
                        "intervalMs": (timing.step * 1000.0) as i64,
                        "maxDataPoints": 1000,
                    }],
                });
                let answer = grafana.post("/api/ds/query", &query).await;
                numbers_of_frames(&answer, &target.ref_id).map_err(|error| format!("{promql}: {error}"))
            }
            Self::Prometheus(prometheus) => {
                let [from, to, step] = [from, to, timing.step].map(|seconds| seconds.to_string());
                let data = if target.instant {
                    prometheus.evaluate("query", &[("query", &promql), ("time", &to)]).await
                } else {
                    let range = [("query", &*promql), ("start", &*from), ("end", &*to), ("step", &*step)];
                    prometheus.evaluate("query_range", &range).await
                }?;
                let series = data["result"].as_array().unwrap().iter();
                let points = series.flat_map(|one| match one["values"].as_array() {
                    Some(points) => points.clone(),
                    None => vec![one["value"].clone()],
                });
                Ok(points.filter(|point| point[1] != "NaN").count())
            }
        }
    }
}

/// Counts the numbers in what Grafana answers to one query: frames of columns, the first of which is the time.
fn numbers_of_frames(answer: &Answer, ref_id: &str) -> Hope<usize> {
    let text = answer.text();
    let body: Value = serde_json::from_str(&text).map_err(|error| format!("{}: {error}: {text}", answer.status))?;
    let result = &body["results"][ref_id];
    if answer.status != StatusCode::OK || result["status"] != 200 || !result["error"].is_null() {
        return Err(format!("{}: {text}", answer.status));
    }
    let frames = result["frames"].as_array().ok_or_else(|| format!("no frames: {text}"))?;
    let numbers = |frame: &Value| -> usize {
        let fields = frame["schema"]["fields"].as_array().into_iter().flatten();
        let columns = frame["data"]["values"].as_array().into_iter().flatten();
        let of_numbers = fields.zip(columns).filter(|(field, _)| field["type"] == "number");
        of_numbers.map(|(_, column)| column.as_array().unwrap().iter().filter(|cell| cell.is_number()).count()).sum()
    };
    Ok(frames.iter().map(numbers).sum())
}
