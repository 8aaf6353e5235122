//! The legacy endpoints that set a gauge by hand.

use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;
use warp::reply::Response;

use super::input::{Fields, integer};
use super::problem::ApiError;
use super::{App, json};

/// The answer of `GET /update`.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"active_users": 42}))]
pub struct ActiveUsers {
    /// What `app_active_users` is now.
    #[schema(minimum = 0)]
    pub active_users: i64,
}

/// The answer of `GET /cpu`.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"cpu_usage_percent": 12.5}))]
pub struct CpuUsage {
    /// What `app_cpu_usage_percent` is now.
    #[schema(minimum = 0, maximum = 100)]
    pub cpu_usage_percent: f64,
}

/// `GET /update`.
pub async fn update(app: &App, query: &str) -> Result<Response, ApiError> {
    let mut fields = Fields::from_query(&["users"], query)?;
    let users = fields.required("users", |text| integer(text, 0..=i64::MAX));
    fields.finish()?;
    let active_users = users.expect("no error means it was given");
    app.metrics().set_active_users(active_users);
    Ok(json(StatusCode::OK, &ActiveUsers { active_users }))
}

/// `GET /cpu`.
pub async fn cpu(app: &App, query: &str) -> Result<Response, ApiError> {
    let mut fields = Fields::from_query(&["value"], query)?;
    let value = fields.required("value", parse_percent);
    fields.finish()?;
    let cpu_usage_percent = value.expect("no error means it was given");
    app.metrics().set_cpu_usage_percent(cpu_usage_percent);
    Ok(json(StatusCode::OK, &CpuUsage { cpu_usage_percent }))
}

fn parse_percent(text: &str) -> Result<f64, &'static str> {
    let value = text.parse::<f64>().ok().filter(|value| (0.0..=100.0).contains(value));
    // `-0` is in the range; its sign would show in the metric.
    let value = value.map(f64::abs);
    value.ok_or("must be a number from 0 to 100")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_are_numbers_from_0_to_100() {
        for (text, expected) in [("0", Some(0.0)), ("100", Some(100.0)), ("12.5", Some(12.5)), ("1e1", Some(10.0))] {
            assert_eq!(parse_percent(text).ok(), expected, "{text}");
        }
        for text in ["-0.1", "100.1", "NaN", "inf", "", "ten", "1,5"] {
            assert!(parse_percent(text).is_err(), "{text}");
        }
    }
}
