// The apps of this folder: `pm2 start ecosystem.config.js`, or `clusterd start ecosystem.config.js`.
module.exports = {
  apps: [
    {
      name: 'web',
      script: 'app.js',
      instances: 'max',
      env: {
        NODE_ENV: 'development',
      },
      // In force with --env production.
      env_production: {
        NODE_ENV: 'production',
      },
    },
  ],
};
