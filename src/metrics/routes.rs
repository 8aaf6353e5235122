//! Which route template a path belongs to: the bound on the `route` label.
//!
//! This module owns path templates and their matching. It refuses to label a request by its raw path: whatever
//! clients ask for, [`RouteTable::resolve`] gives one of `templates + 1` values.

use std::fmt;

use http::Method;

use super::names;

/// A parsed path template: literal segments and `{parameters}`, such as `/api/users/{id}`.
///
/// A parameter stands for exactly one non-empty segment. Matching compares raw, still percent-encoded segments.
struct Template {
    segments: Vec<Segment>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Literal(String),
    Parameter,
}

impl Template {
    /// Parses a template. It is refused when it does not start with `/`, has an empty segment (a double or trailing
    /// slash), or braces that do not enclose exactly one whole segment's name.
    fn parse(text: &str) -> Result<Self, TemplateError> {
        let error = |reason| TemplateError { template: text.to_owned(), reason };
        let rest = text.strip_prefix('/').ok_or_else(|| error("it must start with '/'"))?;
        let segments = if rest.is_empty() {
            Vec::new()
        } else {
            rest.split('/').map(Segment::parse).collect::<Result<_, _>>().map_err(error)?
        };
        Ok(Self { segments })
    }

    fn is_literal(&self) -> bool {
        self.segments.iter().all(|segment| matches!(segment, Segment::Literal(_)))
    }
}

impl Segment {
    fn parse(segment: &str) -> Result<Self, &'static str> {
        if segment.is_empty() {
            return Err("it has an empty segment");
        }
        match segment.strip_prefix('{').map(|inner| inner.strip_suffix('}')) {
            Some(Some(name)) if !name.is_empty() && !name.contains(['{', '}']) => Ok(Self::Parameter),
            None if !segment.contains(['{', '}']) => Ok(Self::Literal(segment.to_owned())),
            _ => Err("a parameter must be one whole segment, such as {id}"),
        }
    }
}

/// Why a path template, or a table of them, was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the route template {template:?} is not usable: {reason}")]
pub struct TemplateError {
    template: String,
    reason: &'static str,
}

/// A route template with what is known about it beforehand.
///
/// `"/api/users".into()` is enough to be measured. [`Route::answers`] adds the statuses that are expected, so that
/// their series exist at 0 from the start and the first error ever shows in `rate()` and `increase()`.
#[derive(Debug, Clone)]
pub struct Route {
    template: String,
    pub(super) answers: Vec<(Method, Vec<u16>)>,
    pub(super) unrecorded: Vec<Method>,
}

impl Route {
    /// A route of which nothing but its template is known.
    pub fn new(template: impl Into<String>) -> Self {
        Self { template: template.into(), answers: Vec::new(), unrecorded: Vec::new() }
    }

    /// Declares that requests of this method are answered with these statuses.
    #[must_use]
    pub fn answers(mut self, method: Method, statuses: impl IntoIterator<Item = u16>) -> Self {
        self.answers.push((method, statuses.into_iter().collect()));
        self
    }

    /// Leaves requests of this method out of all metrics: for the scrape itself, which would always see itself in
    /// progress.
    #[must_use]
    pub fn unrecorded(mut self, method: Method) -> Self {
        self.unrecorded.push(method);
        self
    }
}

impl From<&str> for Route {
    fn from(template: &str) -> Self {
        Self::new(template)
    }
}

/// Maps request paths to route templates.
///
/// ```
/// use api_monitoring::metrics::RouteTable;
///
/// let table = RouteTable::new(["/api/users", "/api/users/{id}"])?;
/// assert_eq!(table.resolve("/api/users/42"), "/api/users/{id}");
/// assert_eq!(table.resolve("/wp-login.php"), "unmatched");
/// # Ok::<(), api_monitoring::metrics::TemplateError>(())
/// ```
#[derive(Clone)]
pub struct RouteTable {
    routes: Vec<Route>,
    tree: Node,
    exact: bool,
}

/// The templates as a tree of their segments, so that a request compares its path with few of them.
#[derive(Clone, Default)]
struct Node {
    literals: Vec<(String, Node)>,
    parameter: Option<Box<Node>>,
    /// The position of the route that ends here.
    route: Option<Position>,
}

/// The lesser wins: a literal template over one with parameters, and then the one that was given first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Position {
    has_parameter: bool,
    index: usize,
}

impl Node {
    /// The node at which a template ends, made where there is none.
    fn end_of(&mut self, segments: &[Segment]) -> &mut Self {
        let Some((segment, rest)) = segments.split_first() else { return self };
        let next = match segment {
            Segment::Parameter => &mut **self.parameter.get_or_insert_default(),
            Segment::Literal(literal) => {
                let known = self.literals.iter().position(|(known, _)| known == literal);
                let index = known.unwrap_or_else(|| {
                    self.literals.push((literal.clone(), Self::default()));
                    self.literals.len() - 1
                });
                &mut self.literals[index].1
            }
        };
        next.end_of(rest)
    }

    /// The route of a path, given without its first slash.
    fn find(&self, path: &str) -> Option<Position> {
        // Segments are short: looking at each byte beats a search that is made for long texts.
        let (segment, rest) = match path.bytes().position(|byte| byte == b'/') {
            Some(slash) => (&path[..slash], Some(&path[slash + 1..])),
            None => (path, None),
        };
        let below = |node: &Self| rest.map_or(node.route, |rest| node.find(rest));
        let literal = self.literals.iter().find(|(literal, _)| literal == segment).and_then(|(_, node)| below(node));
        let parameter = self.parameter.as_deref().filter(|_| !segment.is_empty()).and_then(below);
        // `None` would be the least of the three.
        [literal, parameter].into_iter().flatten().min()
    }
}

impl RouteTable {
    /// Builds the table. A literal template wins over one with parameters; among the latter the first given wins.
    ///
    /// # Errors
    ///
    /// When a template cannot be parsed, or fits the same paths as another.
    pub fn new<R: Into<Route>>(routes: impl IntoIterator<Item = R>) -> Result<Self, TemplateError> {
        let mut table = Self { routes: Vec::new(), tree: Node::default(), exact: false };
        for route in routes {
            table.add(route.into())?;
        }
        Ok(table)
    }

    /// Takes a path with a trailing slash for another path. Without this it belongs to the same route, as warp's own
    /// `path::end` and `path!` have it.
    #[must_use]
    pub fn exact(mut self) -> Self {
        self.exact = true;
        self
    }

    fn add(&mut self, route: Route) -> Result<(), TemplateError> {
        let template = Template::parse(&route.template)?;
        let end = self.tree.end_of(&template.segments);
        if end.route.is_some() {
            return Err(TemplateError { template: route.template, reason: "another fits the same paths" });
        }
        end.route = Some(Position { has_parameter: !template.is_literal(), index: self.routes.len() });
        self.routes.push(route);
        Ok(())
    }

    /// Maps a request path to its route template, or to [`names::UNMATCHED`].
    ///
    /// The result is always one of `templates + 1` values, so a client walking random paths cannot grow the set of
    /// series. Matching is by segment and takes no allocation.
    #[must_use]
    pub fn resolve(&self, path: &str) -> &str {
        self.label(self.index(path))
    }

    /// The position of a path's route among those given; `None` when there is none.
    #[must_use]
    pub fn position(&self, path: &str) -> Option<usize> {
        let without_slash = || path.strip_suffix('/').filter(|_| !self.exact);
        self.find(path).or_else(|| self.find(without_slash()?))
    }

    /// The same; [`Self::unmatched`] when there is none.
    pub(super) fn index(&self, path: &str) -> usize {
        self.position(path).unwrap_or(self.unmatched())
    }

    /// How many routes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.routes.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    fn find(&self, path: &str) -> Option<usize> {
        let found = match path.strip_prefix('/')? {
            "" => self.tree.route,
            rest => self.tree.find(rest),
        };
        found.map(|position| position.index)
    }

    /// The position that stands for every path outside the table.
    pub(super) fn unmatched(&self) -> usize {
        self.routes.len()
    }

    /// The `route` label of a position.
    pub(super) fn label(&self, index: usize) -> &str {
        self.routes.get(index).map_or(names::UNMATCHED, |route| &route.template)
    }

    pub(super) fn routes(&self) -> &[Route] {
        &self.routes
    }
}

impl fmt::Debug for RouteTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.routes.iter().map(|route| &route.template)).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn table() -> RouteTable {
        let table = RouteTable::new(["/", "/api/users", "/api/users/{id}", "/api/users/me", "/docs/{file}"]);
        table.unwrap().exact()
    }

    #[test]
    fn paths_resolve_to_their_template() {
        let cases = [
            ("/", "/", "the root is a template like any other"),
            ("/api/users", "/api/users", "a literal"),
            ("/api/users/7", "/api/users/{id}", "a parameter takes one segment"),
            ("/api/users/%00", "/api/users/{id}", "encoded segments are not decoded here"),
            ("/api/users/me", "/api/users/me", "a literal wins over a parameter"),
            ("/api/users/", "unmatched", "a parameter is never empty"),
            ("/api/users/7/", "unmatched", "a trailing slash is another path"),
            ("/api/users/7/posts", "unmatched", "a parameter takes no second segment"),
            ("//api/users", "unmatched", "an empty segment is not skipped"),
            ("/API/users", "unmatched", "paths are case-sensitive"),
            ("", "unmatched", "CONNECT has no path"),
            ("*", "unmatched", "OPTIONS * is no path"),
        ];
        for (path, expected, reason) in cases {
            assert_eq!(table().resolve(path), expected, "{path:?}: {reason}");
        }
    }

    #[test]
    fn unusable_templates_are_refused_by_name() {
        let cases = [
            ("users", "no leading slash"),
            ("/users/", "trailing slash"),
            ("/users//x", "empty segment"),
            ("/users/{id", "unclosed brace"),
            ("/users/{}", "nameless parameter"),
            ("/users/v{n}", "parameter inside a segment"),
        ];
        for (template, reason) in cases {
            let error = RouteTable::new([template]).expect_err(reason);
            assert!(error.to_string().contains(&format!("{template:?}")), "{error}");
        }
    }

    #[test]
    fn a_template_that_fits_the_same_paths_as_another_is_refused() {
        assert!(RouteTable::new(["/a", "/b", "/a"]).is_err());
        assert!(RouteTable::new(["/a/{x}", "/a/{y}"]).is_err());
    }

    #[test]
    fn a_trailing_slash_belongs_to_the_route_unless_paths_are_exact() {
        let table = RouteTable::new(["/", "/hello/{name}", "/about"]).unwrap();

        for (path, route) in [("/hello/Ada/", "/hello/{name}"), ("/about/", "/about"), ("/", "/")] {
            assert_eq!(table.resolve(path), route);
        }
        for path in ["/hello//", "/about//", "//", "/hello/"] {
            assert_eq!(table.resolve(path), if path == "//" { "/" } else { names::UNMATCHED }, "{path}");
        }
        assert_eq!(table.exact().resolve("/about/"), names::UNMATCHED);
    }

    /// The rule itself, without the tree: a literal template, or else the first that fits.
    fn by_the_rule<'a>(templates: &'a [String], path: &str) -> &'a str {
        let fits = |template: &str| {
            let pairs: Vec<_> = template.split('/').zip(path.split('/')).collect();
            let fit = |(expected, given): &(&str, &str)| {
                if expected.starts_with('{') { !given.is_empty() } else { expected == given }
            };
            template.split('/').count() == path.split('/').count() && pairs.iter().all(fit)
        };
        let fitting = || templates.iter().filter(|template| fits(template));
        let literal = fitting().find(|template| !template.contains('{'));
        literal.or_else(|| fitting().next()).map_or(names::UNMATCHED, String::as_str)
    }

    #[test]
    fn the_first_given_wins_where_paths_fit_two_templates() {
        let table = RouteTable::new(["/a/{x}/c", "/a/b/{y}", "/{x}/b/{y}", "/a/b/d"]).unwrap();

        let cases = [("/a/b/c", "/a/{x}/c"), ("/a/b/e", "/a/b/{y}"), ("/z/b/e", "/{x}/b/{y}"), ("/a/b/d", "/a/b/d")];
        for (path, route) in cases {
            assert_eq!(table.resolve(path), route, "{path}");
        }
    }

    proptest! {
        #[test]
        fn the_tree_finds_what_the_rule_says(
            templates in prop::collection::vec("(/(a|b|c|\\{x\\})){1,4}", 1..8),
            paths in prop::collection::vec("(/[abcd]{0,1}){0,5}", 20),
        ) {
            let mut table = RouteTable::new([""; 0]).unwrap().exact();
            // Of two that fit the same paths, the second is refused and leaves the table as it was.
            let added = templates.iter().filter(|template| table.add(template.as_str().into()).is_ok());
            let added: Vec<_> = added.cloned().collect();
            for path in paths {
                prop_assert_eq!(table.resolve(&path), by_the_rule(&added, &path), "{:?}", path);
            }
        }

        #[test]
        fn no_path_leaves_the_set(path in ".{0,60}|(/[a-z%0-9{}]{0,6}){0,5}") {
            let table = table();
            let route = table.resolve(&path).to_owned();
            prop_assert!(route == names::UNMATCHED || table.routes().iter().any(|known| known.template == route));
        }
    }
}
