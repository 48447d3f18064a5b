SwaggerUIBundle({
  dom_id: "#swagger-ui",
  url: "/openapi.json",
  deepLinking: true,
  // Keys stay in the page: they are gone when it is left.
  persistAuthorization: false,
  // The badge of an online validator, which would be told the address of this page's document.
  validatorUrl: null,
});
