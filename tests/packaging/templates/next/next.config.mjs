export default { basePath: "/some/sub/path", trailingSlash: true };
