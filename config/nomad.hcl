# clusterd as a task of Nomad: nomad job run config/nomad.hcl
#
# Replace the image with yours (see Dockerfile), and args with your command. Services are Nomad's own; with Consul, leave out the
# lines `provider`.

job "web" {
  group "web" {
    count = 3

    # One node less takes only its part.
    spread {
      attribute = "${node.unique.id}"
    }

    # Nomad takes the services out of its list, waits this long, and only then sends the signal: balancers have seen it by
    # then, and --stop-delay is not needed.
    shutdown_delay = "5s"

    # A new one first, which has to be ready for a while. Then the others, one after the other: each is away while its successor
    # starts. With canary = 3, all new ones come first.
    update {
      canary           = 1
      auto_promote     = true
      max_parallel     = 1
      health_check     = "checks"
      min_healthy_time = "10s"
      auto_revert      = true
    }

    network {
      port "http" {
        to = 3000
      }
      port "metrics" {
        to = 9464
      }
    }

    service {
      name     = "web"
      provider = "nomad"
      port     = "http"

      # Fails if a port has no worker, or once a stop has begun. clusterd restarts workers itself.
      check {
        name     = "ready"
        type     = "http"
        path     = "/readyz"
        port     = "metrics"
        interval = "2s"
        timeout  = "1s"
      }

      # Fails only if clusterd itself does not answer. Then the task is restarted.
      check {
        name     = "live"
        type     = "http"
        path     = "/livez"
        port     = "metrics"
        interval = "10s"
        timeout  = "2s"

        check_restart {
          limit = 3
          grace = "60s"
        }
      }
    }

    # For a Prometheus that finds its targets here (nomad_sd_configs, or consul_sd_configs).
    service {
      name     = "web-metrics"
      provider = "nomad"
      port     = "metrics"
      tags     = ["prometheus", "app=web"]
    }

    task "web" {
      driver = "docker"
      user   = "10001"

      config {
        image = "clusterd:0.1.0"
        ports = ["http", "metrics"]

        args = [
          "--metrics=0.0.0.0:9464",
          "--log-format=json",
          "--workers=2",
          # A server of your own comes last: "--", then the command, such as "node", "app.js".
        ]

        cap_drop        = ["all"]
        security_opt    = ["no-new-privileges"]
        readonly_rootfs = true

        # For the server, and for clusterd's socket.
        mount {
          type   = "tmpfs"
          target = "/tmp"

          tmpfs_options {
            size = 67108864
          }
        }
      }

      # With driver = "exec" there is no image and nothing translates ports: leave out both `to`, user, and all of config but for
      #
      #   command = "/usr/local/bin/clusterd"
      #   args    = ["--port=${NOMAD_PORT_http}", "--metrics=0.0.0.0:${NOMAD_PORT_metrics}", "--", "node", "app.js"]

      # Drivers other than docker send INT unless told otherwise, which is clusterd's fast stop.
      kill_signal = "SIGTERM"
      # Longer than --drain-timeout and --kill-timeout together. A client permits 30 s at most (max_kill_timeout).
      kill_timeout = "15s"

      resources {
        cpu    = 1000
        memory = 256
      }
    }
  }
}
