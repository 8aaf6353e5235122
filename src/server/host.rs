//! The `Host` header, of which a request must have exactly one that is well-formed (RFC 9112, section 3.2).

use http::header::HOST;
use http::{HeaderMap, Version};

use crate::api::HostFault;

/// What is wrong with a request's `Host`. HTTP/1.0 may leave it out.
pub(super) fn fault(version: Version, headers: &HeaderMap) -> Option<HostFault> {
    let mut values = headers.get_all(HOST).iter();
    match (values.next(), values.next()) {
        (None, _) if version == Version::HTTP_11 => Some(HostFault::Missing),
        (None, _) => None,
        (Some(_), Some(_)) => Some(HostFault::Repeated),
        (Some(value), None) if is_host_and_port(value.as_bytes()) => None,
        (Some(_), None) => Some(HostFault::Malformed),
    }
}

/// `uri-host [":" port]` of RFC 3986. It may be empty: so a client says that its target has no authority.
fn is_host_and_port(value: &[u8]) -> bool {
    let (host_fits, port) = if let [b'[', rest @ ..] = value {
        let Some(end) = rest.iter().position(|byte| *byte == b']') else { return false };
        let literal = |byte: &u8| byte.is_ascii_alphanumeric() || b":.-_~!$&'()*+,;=".contains(byte);
        (end > 0 && rest[..end].iter().all(literal), &rest[end + 1..])
    } else {
        let end = value.iter().position(|byte| *byte == b':').unwrap_or(value.len());
        let named = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(byte);
        (value[..end].iter().all(named), &value[end..])
    };
    let port_fits = match port {
        [] => true,
        [b':', digits @ ..] => digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    host_fits && port_fits
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address_with_or_without_a_port() {
        let fitting =
            ["", "localhost", "localhost:8000", "a.b-c_d.example:", "127.0.0.1:80", "[::1]", "[::1]:8000", "x%20y"];
        let others = [
            "a b",
            "a/b",
            "a,b c",
            "http://a",
            "user@host",
            "a:b",
            "a:80:80",
            "::1",
            "[::1",
            "[]",
            "[::1]80",
            "a\"b",
            "é",
            "a#",
        ];
        for host in fitting {
            assert!(is_host_and_port(host.as_bytes()), "{host:?}");
        }
        for host in others {
            assert!(!is_host_and_port(host.as_bytes()), "{host:?}");
        }
    }

    #[test]
    fn one_host_is_asked_of_http_1_1_and_not_more_than_one_of_anybody() {
        let headers = |hosts: &[&'static str]| {
            hosts.iter().map(|host| (HOST, HeaderValue::from_static(host))).collect::<HeaderMap>()
        };
        let cases = [
            (Version::HTTP_11, &[][..], Some(HostFault::Missing)),
            (Version::HTTP_10, &[], None),
            (Version::HTTP_11, &["a"], None),
            (Version::HTTP_10, &["a"], None),
            (Version::HTTP_11, &["a", "a"], Some(HostFault::Repeated)),
            (Version::HTTP_10, &["a", "b"], Some(HostFault::Repeated)),
            (Version::HTTP_11, &["a b"], Some(HostFault::Malformed)),
        ];
        for (version, hosts, expected) in cases {
            assert_eq!(fault(version, &headers(hosts)), expected, "{version:?} {hosts:?}");
        }
    }
}
